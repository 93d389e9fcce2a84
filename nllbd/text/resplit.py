"""Cut a sentence that is too long for the model into parts that are not, at the best places. Nothing is dropped.

Halving rather than filling up: two parts of 120 tokens translate better than one of 200 and one of 40.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from nllbd.text.spans import find_spans

Span = tuple[int, int]

_CLOSERS = "\"'”’»›)\\]」』）】》"
_SENTENCE_END = re.compile(rf"[.!?…۔؟।॥։][{_CLOSERS}]*(?=\s)|[。！？｡။។༎།][{_CLOSERS}]*")
_CLAUSE_END = re.compile(rf"[,;:–—-][{_CLOSERS}]*(?=\s)|[、，；：،؛—]|[)\]）】](?=\s)")
_SPACE = re.compile(r"\s+")
# For each kind of place, the share of the part that must lie on either side: a good place off centre is worth it,
# a mere space is not.
_KINDS = ((_SENTENCE_END, 0.15), (_CLAUSE_END, 0.25), (_SPACE, 0.3), (_SPACE, 0.0))
_MAX_CLUSTER = 64
_EXTENDING = frozenset({"Mn", "Mc", "Me"})
_JOINER = "\u200d"
_VARIATION_AND_TONES = re.compile("[\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")


def resplit(core: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[Span]:
    """Consecutive spans that cover `core`, each of at most `max_tokens` once white space around it is removed.

    Best place first: end of a sentence, end of a clause, white space, between two characters (grapheme clusters are
    kept together where they are not absurdly long). Only a single character can exceed the limit.
    """
    if count_tokens(core.strip()) <= max_tokens:
        return [(0, len(core))]
    places = _Places(core)

    def parts(start: int, end: int) -> Iterator[Span]:
        if end - start <= 1 or count_tokens(core[start:end].strip()) <= max_tokens:
            yield start, end
            return
        middle = places.best(start, end)
        yield from parts(start, middle)
        yield from parts(middle, end)

    return list(parts(0, len(core)))


class _Places:
    """Where a text may be cut, best kinds first."""

    def __init__(self, text: str) -> None:
        self._text = text
        spans = find_spans(text)
        self._kinds = [(_positions(pattern, text, spans), margin) for pattern, margin in _KINDS]

    def best(self, start: int, end: int) -> int:
        """A position strictly between `start` and `end` (which are at least two apart)."""
        middle = (start + end) // 2
        for positions, margin in self._kinds:
            slack = int((end - start) * margin)
            found = _nearest(positions, start + 1 + slack, end - 1 - slack, middle)
            if found is not None:
                return found
        return self._between_characters(start, end, middle)

    def _between_characters(self, start: int, end: int, middle: int) -> int:
        for distance in range(_MAX_CLUSTER):
            for position in (middle - distance, middle + distance):
                if start < position < end and not self._is_inside_cluster(position):
                    return position
        return middle

    def _is_inside_cluster(self, position: int) -> bool:
        before, after = self._text[position - 1], self._text[position]
        return (
            before == _JOINER
            or unicodedata.category(after) in _EXTENDING
            or _VARIATION_AND_TONES.match(after) is not None
        )


def _positions(pattern: re.Pattern[str], text: str, spans: list[Span]) -> list[int]:
    """Ends of the pattern's matches, those within a protected span left out."""
    ends = [match.end() for match in pattern.finditer(text)]
    if not spans:
        return ends
    starts = [start for start, _ in spans]
    return [end for end in ends if (i := bisect_left(starts, end)) == 0 or end >= spans[i - 1][1]]


def _nearest(positions: list[int], low: int, high: int, target: int) -> int | None:
    """The position in [low, high] that is closest to `target`."""
    first, last = bisect_left(positions, low), bisect_right(positions, high)
    if first >= last:
        return None
    after = bisect_left(positions, target, first, last)
    candidates = positions[max(first, after - 1) : min(last, after + 1)]
    return min(candidates, key=lambda position: abs(position - target))
