"""Which parts of a streamed answer are final: events of each text in order, however its segments finish.

The `text` of a text's events concatenate to its whole translation: what is not translated (markup, blank lines,
numbers) opens the event of the segment after it, and what follows the last segment closes the last event.
Pure bookkeeping; knows no engine and no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from nllbd.document import Key, Part, TextPlan, Translations, write_part
from nllbd.job import SegmentEvent

Emit = Callable[[SegmentEvent], None]


class EventOrder:
    """Emits each text's events as soon as they are final. Call `advance` with the key of each finished segment."""

    def __init__(self, plans: Sequence[TextPlan], done: Translations, emit: Emit) -> None:
        self._waiting: dict[Key, list[_TextOrder]] = defaultdict(list)
        for index, plan in enumerate(plans):
            self._move(_TextOrder(index, plan, done, emit))

    def advance(self, key: Key) -> None:
        """This segment is done."""
        for text in self._waiting.pop(key, ()):
            self._move(text)

    def _move(self, text: _TextOrder) -> None:
        blocked_by = text.move()
        if blocked_by is not None:
            self._waiting[blocked_by].append(text)


class _TextOrder:
    """One text's events. `pending` is what was written since the last one."""

    def __init__(self, index: int, plan: TextPlan, done: Translations, emit: Emit) -> None:
        self._index = index
        self._plan = plan
        self._done = done
        self._emit = emit
        self._position = 0
        self._last = max((i for i, part in enumerate(plan.parts) if part.key is not None), default=-1)
        self._pending = ""
        self._num_events = 0

    def move(self) -> Key | None:
        """Emit all that is final now. Returns the segment that the next event waits for, None when there is none."""
        parts = self._plan.parts
        while self._position < len(parts):
            part = parts[self._position]
            if part.key is not None and part.key not in self._done:
                return part.key
            self._pending += write_part(self._plan, part, self._done)
            if part.key is not None and self._position < self._last:
                self._send(part)
            self._position += 1
        self._finish()
        return None

    def _finish(self) -> None:
        if self._last >= 0:
            self._send(self._plan.parts[self._last])
            return
        # Nothing was to be translated: the text is its own single segment.
        text = self._pending if self._plan.parts else self._plan.text
        self._emit(SegmentEvent(self._index, 0, (0, len(self._plan.text)), text, self._plan.warnings))

    def _send(self, part: Part) -> None:
        assert part.key is not None
        warnings = self._done[part.key].warnings
        self._emit(SegmentEvent(self._index, self._num_events, part.span, self._pending, warnings))
        self._num_events += 1
        self._pending = ""
