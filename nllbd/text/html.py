"""HTML cut into markup and text: tags are kept as they are, what is between them is decoded, and escaped again later.

A first form: tags are segment boundaries, so a sentence with a `<b>` in it is translated in parts. Forgiving, as
browsers are: what is no tag is text. What is one comes back byte for byte. Linear in the length of the input, whatever
the input. Knows no languages.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

# A quote opens a value only after `=`; `>` and `<` in a quoted value belong to it. Possessive, and the next `<` outside
# quotes ends the search, so that a `<` that starts no tag costs little however many there are.
_TAG = re.compile(
    r"""</?[A-Za-z](?:=\s*+(?:"[^"]*+"|'[^']*+'|[^\s<>]*+)|[^<>=])*+>|<[!?][A-Za-z\[][^<>]*+>""",
)
_NAME = re.compile(r"<([A-Za-z][^\s/<>]*)")
# What ends only at its own closer, whatever stands in it: opener, closer, where in it the closer may begin (`<!-->`).
_WHOLE = (("<!--", "-->", 2), ("<![CDATA[", "]]>", 9), ("<?", "?>", 2))
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
    """Spans of tags, comments, CDATA, processing instructions and whole opaque elements."""
    missing: set[str] = set()  # closers known not to come again: looking twice would make this quadratic
    position = 0
    while (start := source.find("<", position)) >= 0:
        position = _end_of_whole(source, start, missing)
        if not position and (tag := _TAG.match(source, start)):
            position = _end_of_element(source, tag, missing)
        if position:
            yield start, position
        else:
            position = start + 1


def _end_of_whole(source: str, start: int, missing: set[str]) -> int:
    """Where the comment, CDATA section or processing instruction at `start` ends; 0 if there is none."""
    for opener, closer, offset in _WHOLE:
        if closer not in missing and source.startswith(opener, start):
            stop = source.find(closer, start + offset)
            if stop >= 0:
                return stop + len(closer)
            missing.add(closer)
    return 0


def _end_of_element(source: str, tag: re.Match[str], missing: set[str]) -> int:
    """Where the tag ends; of an opaque element, where its content does."""
    opening = _NAME.match(tag.group())
    name = opening.group(1).lower() if opening else ""
    if name not in _OPAQUE or name in missing or tag.group().endswith("/>"):
        return tag.end()
    closing = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE | re.ASCII).search(source, tag.end())
    if closing is None:
        missing.add(name)
        return tag.end()
    return closing.start()
