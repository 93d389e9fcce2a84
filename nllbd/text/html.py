"""HTML cut into markup and text: tags are kept as they are, what is between them is decoded, and escaped again later.

A first form: tags are segment boundaries, so a sentence with a `<b>` in it is translated in parts. Forgiving, as
browsers are: what is no tag is text. Linear in the length of the input, whatever the input. Knows no languages.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TAG = re.compile(r"<[/!?]?[A-Za-z][^<>]*>")
_NAME = re.compile(r"<([A-Za-z][A-Za-z0-9]*)")
_COMMENT_OPEN, _COMMENT_CLOSE = "<!--", "-->"
#: Elements whose content is not language.
_OPAQUE = frozenset({"script", "style", "code", "pre", "kbd", "samp", "svg", "math", "template"})
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of the input: `raw` as it stands there from `start` on; `text` is what a reader sees of it."""

    start: int
    raw: str
    is_markup: bool

    @property
    def text(self) -> str:
        return "" if self.is_markup else html.unescape(self.raw)


def parse(source: str) -> list[Run]:
    """All runs in order; their `raw` concatenate to `source`."""
    runs: list[Run] = []
    end = 0
    for start, stop in _markup_spans(source):
        if start > end:
            runs.append(Run(end, source[end:start], is_markup=False))
        runs.append(Run(start, source[start:stop], is_markup=True))
        end = stop
    if end < len(source):
        runs.append(Run(end, source[end:], is_markup=False))
    return runs


def escape(text: str) -> str:
    """Text as it must stand between tags."""
    return text.translate(_ESCAPES)


def visible_text(source: str) -> str:
    """What a reader sees, tags replaced by spaces: for detecting its language."""
    return " ".join(run.text for run in parse(source) if not run.is_markup)


def _markup_spans(source: str) -> Iterator[tuple[int, int]]:
    """Spans of tags, comments and whole opaque elements."""
    lowered: str | None = None  # made at most once
    closed: set[str] = set()  # closers known not to come again: looking twice would make this quadratic
    position = 0
    while (start := source.find("<", position)) >= 0:
        position = start + 1
        if source.startswith(_COMMENT_OPEN, start) and _COMMENT_CLOSE not in closed:
            stop = source.find(_COMMENT_CLOSE, start + len(_COMMENT_OPEN))
            if stop < 0:
                closed.add(_COMMENT_CLOSE)
                continue
            position = stop + len(_COMMENT_CLOSE)
            yield start, position
            continue
        tag = _TAG.match(source, start)
        if tag is None:
            continue
        position = tag.end()
        name = _NAME.match(source, start)
        closer = f"</{name.group(1).lower()}" if name else ""
        if closer[2:] in _OPAQUE and not tag.group().endswith("/>") and closer not in closed:
            lowered = _lower(source) if lowered is None else lowered
            stop = lowered.find(closer, position)
            if stop < 0:
                closed.add(closer)
            else:
                position = stop
        yield start, position


def _lower(source: str) -> str:
    """ASCII letters lowered, everything else and all offsets kept (`str.lower` lengthens some letters)."""
    return source.translate({upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)})
