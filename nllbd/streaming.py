"""Which parts of a streamed answer are final: events of each text in order, however its segments finish.

The `text` of a text's events concatenate to its whole translation. A joint between two pieces can only be written when
the piece after it is known, so it opens that piece's event; what follows the last piece closes the last event.
Pure bookkeeping; knows no engine and no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nllbd.document import Chunk, TextPlan, Translations, finish_run, piece_texts
from nllbd.job import SegmentEvent
from nllbd.text.segment import Piece

Emit = Callable[[SegmentEvent], None]
_Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Stop:
    """A place in a text where an event may be due: piece `index` of `chunk`, or a run of markup."""

    chunk: Chunk
    index: int
    ids: _Ids | None


class EventOrder:
    """Emits each text's events as soon as they are final. Call `advance` with the ids of each finished segment."""

    def __init__(self, plans: Sequence[TextPlan], done: Translations, emit: Emit) -> None:
        self._texts = [_TextOrder(index, plan, done, emit) for index, plan in enumerate(plans)]
        self._waiting: dict[_Ids, list[_TextOrder]] = defaultdict(list)
        for text in self._texts:
            self._move(text)

    def advance(self, ids: _Ids) -> None:
        """The segment with these ids is done."""
        for text in self._waiting.pop(ids, ()):
            self._move(text)

    def _move(self, text: _TextOrder) -> None:
        blocked_by = text.move()
        if blocked_by is not None:
            self._waiting[blocked_by].append(text)


class _TextOrder:
    """One text's events. `pending` is what has been passed since the last event: markup, joints, untranslated pieces."""

    def __init__(self, index: int, plan: TextPlan, done: Translations, emit: Emit) -> None:
        self._index = index
        self._plan = plan
        self._done = done
        self._emit = emit
        self._stops = _stops(plan)
        self._position = 0
        self._last = max((i for i, stop in enumerate(self._stops) if stop.ids is not None), default=-1)
        self._pending = ""
        self._num_events = 0

    def move(self) -> _Ids | None:
        """Emit all that is final now. Returns the ids that the next event waits for, None when there is none."""
        while self._position < len(self._stops):
            stop = self._stops[self._position]
            if stop.ids is not None and stop.ids not in self._done:
                return stop.ids
            self._pending += _written(self._plan, stop, self._done)
            if stop.ids is not None and self._position < self._last:
                self._send(stop)
            self._position += 1
        self._finish()
        return None

    def _finish(self) -> None:
        if self._last >= 0:
            self._send(self._stops[self._last])
        else:  # nothing was to be translated: the text is its own single segment
            text = self._pending if self._plan.chunks else self._plan.text
            self._emit(SegmentEvent(self._index, 0, (0, len(self._plan.text)), text, self._plan.warnings))

    def _send(self, stop: _Stop) -> None:
        assert stop.ids is not None
        warnings = (*self._plan.warnings, *self._done[stop.ids].warnings)
        span = source_span(self._plan, stop.chunk, stop.index)
        self._emit(SegmentEvent(self._index, self._num_events, span, self._pending, warnings))
        self._num_events += 1
        self._pending = ""


def source_span(plan: TextPlan, chunk: Chunk, index: int) -> tuple[int, int]:
    """Where piece `index` stands in the text. In HTML the run between two tags that holds it: entities have no length
    of their own."""
    if plan.format == "html":
        return chunk.offset, chunk.end
    piece = chunk.pieces[index]
    start = chunk.offset + piece.start
    return start, start + len(piece.core)


def _stops(plan: TextPlan) -> list[_Stop]:
    stops: list[_Stop] = []
    for chunk in plan.chunks:
        if not chunk.pieces:
            stops.append(_Stop(chunk, 0, None))
        stops += [_Stop(chunk, index, ids) for index, ids in enumerate(chunk.source_ids)]
    return stops


def _written(plan: TextPlan, stop: _Stop, done: Translations) -> str:
    """What this stop adds to the answer: the joint before it and its own text; after a run's last piece, its end."""
    chunk, index = stop.chunk, stop.index
    if not chunk.pieces:
        return chunk.markup
    first = max(index - 1, 0)
    pieces = list(chunk.pieces[first : index + 1])
    texts = piece_texts(replace(chunk, pieces=tuple(pieces), source_ids=chunk.source_ids[first : index + 1]), done, 0)
    is_last = index == len(chunk.pieces) - 1
    if not is_last:
        pieces[-1] = replace(pieces[-1], suffix="")
    if index == 0:
        return finish_run(plan, pieces, texts)
    pieces[0] = replace(pieces[0], prefix="")
    alone = _bare(pieces[0])
    return finish_run(plan, pieces, texts)[len(finish_run(plan, [alone], texts[:1])) :]


def _bare(piece: Piece) -> Piece:
    return replace(piece, prefix="", suffix="")
