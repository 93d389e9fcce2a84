"""Text → pieces the model can translate → text, without losing a character.

NLLB was trained on single sentences and drops the rest of a paragraph, so text is cut at line breaks and tabs, then
into sentences (sentencex), then white space, invisible characters and tags at the edges are set aside; what is still
too long is cut further (resplit.py). The pieces concatenate to the text. Knows no model, only a function that counts.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

import msgspec
import sentencex

from nllbd.languages import Language
from nllbd.text.resplit import resplit
from nllbd.text.spans import TAG, find_spans, is_language

#: Source tokens a piece should not exceed. NLLB's training sentences hardly ever do (most have 10 to 60 tokens), and
#: its quality falls off long before its 1,024 positions end.
MAX_TOKENS = 200

Span = tuple[int, int]

_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_TABS = re.compile(r"\t+")
# Not for the model: controls, soft hyphens, zero-width spaces, direction marks. Joiners belong to letters and emoji.
_INVISIBLE = re.compile("[\\s\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# Pictures and bullets at the edge of a sentence: no vocabulary has them all. Arrows may be part of the sentence.
_PICTURE = "\u25a0-\u27bf\u2b50-\u2b55\U0001f000-\U0001faff"
_PICTURE_START = re.compile(f"[{_PICTURE}]")
_PICTURE_PART = re.compile(f"[{_PICTURE}\u200d\ufe0e\ufe0f\U000e0020-\U000e007f]")
_PICTURES = re.compile(_PICTURE_START.pattern + _PICTURE_PART.pattern + "*")
# sentencex panics on some white space that takes more than one byte, and cannot take surrogates.
_ODD = re.compile("[^\\S ]|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CLOSING_TAGS = re.compile(r"(?:</[A-Za-z][\w:-]*\s*>\s*)+")
_MAX_TAG = 2_000
# sentencex takes quadratic time on some input, so it sees a long line a window at a time.
_WINDOW = 2_000
_NO_SPACE_BEFORE = frozenset(".,;:!?)]}»”’…。，、；：！？）】》」』")


class _Cut(msgspec.Struct, frozen=True):
    """A piece as offsets. An empty core: nothing to translate."""

    start: int
    end: int
    core_start: int
    core_end: int

    @property
    def is_empty(self) -> bool:
        return self.core_start == self.core_end


class Piece(msgspec.Struct, frozen=True):
    """A run of the text: `prefix + core + suffix`; all pieces concatenate to the text.

    `core` is what to translate, free of white space at its edges; empty where there is nothing to translate (blank
    lines, numbers, URLs and whatever else `needs_translation` denies). `start` is the core's offset in the text.
    """

    prefix: str
    core: str
    suffix: str
    start: int

    @property
    def text(self) -> str:
        return self.prefix + self.core + self.suffix


def split(text: str, language: Language, max_tokens: int, count_tokens: Callable[[str], int]) -> list[Piece]:
    """Cut `text` of `language` into pieces whose cores have at most `max_tokens` by `count_tokens`.

    A single character that has more is the only exception. Lossless for every string; time grows linearly.
    """
    cuts: list[_Cut] = []
    for start, end, stop in _lines(text):
        for sentence in _sentences(text, start, end, language):
            for cut in _cuts(text, sentence, language, max_tokens, count_tokens):
                _append(cuts, cut, text)
        if stop > end:
            _append(cuts, _Cut(end, stop, end, end), text)
    return [_piece(text, cut) for cut in cuts]


def needs_translation(core: str, source: Language) -> bool:
    """Whether `core` is language at all. What is not comes back unchanged (see `spans.is_language`)."""
    del source  # the same for all languages so far
    return is_language(core)


def frames(pieces: Sequence[Piece], source: Language, target: Language) -> list[tuple[str, str]]:
    """For each piece, what stands before and after its translation.

    Joints follow the target: an empty one becomes a space when the target's script uses spaces and the source's does
    not; a single space is dropped the other way round. Independent of the translations, so that `before + translation
    + after` can be sent piece by piece; they concatenate to what `join` returns.
    """
    before = [piece.prefix for piece in pieces]
    after = [piece.suffix for piece in pieces]
    if source.spaces != target.spaces:
        for i in range(1, len(pieces)):
            left, right = pieces[i - 1].text, pieces[i].text
            joint = left[len(left.rstrip()) :] + right[: len(right) - len(right.lstrip())]
            if target.spaces and joint == "" and right[:1] not in _NO_SPACE_BEFORE:
                before[i] = " " + before[i]
            elif source.spaces and joint == " ":
                before[i] = before[i].removeprefix(" ")
                after[i - 1] = after[i - 1].removesuffix(" ")
    return list(zip(before, after, strict=True))


def join(pieces: Sequence[Piece], translations: Sequence[str], source: Language, target: Language) -> str:
    """The translated text. `translations[i]` is that of `pieces[i].core`; empty for an empty core."""
    framed = zip(frames(pieces, source, target), translations, strict=True)
    return "".join(before + translation + after for (before, after), translation in framed)


def _lines(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, stop) of each line or column: [start, end) its content, [end, stop) the break or tabs after it."""
    if text.isprintable():  # neither line breaks nor tabs
        if text:
            yield 0, len(text), len(text)
        return
    start = 0
    for match in _LINE_BREAK.finditer(text):
        yield from _columns(text, start, match.start(), match.end())
        start = match.end()
    if start < len(text):
        yield from _columns(text, start, len(text), len(text))


def _columns(text: str, start: int, end: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """A line cut at its tabs, those within a protected span left out: the model would make spaces of them."""
    if "\t" in (line := text[start:end]):
        spans = find_spans(line)
        starts = [span[0] for span in spans]
        offset = start
        for tabs in _TABS.finditer(line):
            i = bisect_right(starts, tabs.start())
            if not i or tabs.start() >= spans[i - 1][1]:
                yield start, offset + tabs.start(), offset + tabs.end()
                start = offset + tabs.end()
    yield start, end, stop


def _sentences(text: str, start: int, end: int, language: Language) -> Iterator[Span]:
    """Spans of the sentences of a line; they cover it."""
    line = text[start:end]
    spans = find_spans(line)
    starts = [span[0] for span in spans]
    previous = 0
    plain = line if line.isprintable() else _ODD.sub(" ", line)
    for boundary in _boundaries(plain, language.bcp47.partition("-")[0]):
        i = bisect_left(starts, boundary)
        if i and boundary < spans[i - 1][1]:
            continue
        tags = _CLOSING_TAGS.match(line, boundary)
        cut = tags.end() if tags else boundary
        if cut > previous:
            yield start + previous, start + cut
            previous = cut
    if previous < len(line):
        yield start + previous, end


def _boundaries(line: str, code: str) -> Iterator[int]:
    """Offsets at which a sentence of `line` ends. In order; may end before the line does."""
    start = 0
    while start < len(line):
        window = line[start : start + _WINDOW]
        ends = _sentence_ends(window, code)
        if start + len(window) < len(line):
            # The last one ends with the window, not for a reason of the text.
            ends = [end for end in ends if end < len(window)]
        yield from (start + end for end in ends)
        # What follows the last end is looked at again with what comes after it; but always get on.
        start += max(ends[-1], _WINDOW // 2) if ends else len(window)


def _sentence_ends(window: str, code: str) -> list[int]:
    try:
        sentences = sentencex.segment(code, window)
    except BaseException as error:
        # A panic of the Rust library is no Exception. One sentence, then: resplit.py will deal with its length.
        if type(error).__name__ != "PanicException":
            raise
        return []
    ends, end = [], 0
    for sentence in sentences:
        if not window.startswith(sentence, end):
            break
        end += len(sentence)
        ends.append(end)
    return ends


def _cuts(
    text: str, sentence: Span, language: Language, max_tokens: int, count_tokens: Callable[[str], int]
) -> Iterator[_Cut]:
    """A sentence as one cut, or as several when it is too long for the model."""
    start, end = sentence
    core_start, core_end = _trimmed(text, start, end)
    core = text[core_start:core_end]
    if not needs_translation(core, language):
        yield _Cut(start, end, start, start)
        return
    parts = [(core_start + a, core_start + b) for a, b in resplit(core, max_tokens, count_tokens)]
    if len(parts) == 1:
        yield _Cut(start, end, core_start, core_end)
        return
    parts[0] = (start, parts[0][1])
    parts[-1] = (parts[-1][0], end)
    for part_start, part_end in parts:
        inner = _trimmed(text, part_start, part_end)
        translatable = needs_translation(text[slice(*inner)], language)
        yield _Cut(part_start, part_end, *(inner if translatable else (part_start, part_start)))


def _append(cuts: list[_Cut], cut: _Cut, text: str) -> None:
    """Add a cut; white space goes to its neighbour, and what needs no translation stays together."""
    last = cuts[-1] if cuts else None
    if last and cut.is_empty and (last.is_empty or text[cut.start : cut.end].isspace()):
        cuts[-1] = _Cut(last.start, cut.end, last.core_start, last.core_end)
    elif last and last.is_empty and text[last.start : last.end].isspace():
        cuts[-1] = _Cut(last.start, cut.end, cut.core_start, cut.core_end)
    else:
        cuts.append(cut)


def _trimmed(text: str, start: int, end: int) -> Span:
    """The span without invisible characters, pictures and tags at its edges."""
    while start < end:
        if _INVISIBLE.match(text, start):
            start += 1
        elif edge := _PICTURES.match(text, start, end) or TAG.match(text, start, end):
            start = edge.end()
        else:
            break
    while start < end:
        if _INVISIBLE.match(text, end - 1):
            end -= 1
        elif (edge_start := _edge_before(text, start, end)) is not None:
            end = edge_start
        else:
            break
    return start, end


def _edge_before(text: str, start: int, end: int) -> int | None:
    """Where a tag or a run of pictures that ends at `end` starts."""
    if text[end - 1] == ">":
        opening = text.rfind("<", max(start, end - _MAX_TAG), end)
        return opening if opening >= 0 and TAG.fullmatch(text, opening, end) else None
    first = end
    while first > start and _PICTURE_PART.match(text, first - 1):
        first -= 1
    pictures = _PICTURE_START.search(text, first, end)
    return pictures.start() if pictures else None


def _piece(text: str, cut: _Cut) -> Piece:
    if cut.is_empty:
        return Piece("", "", text[cut.start : cut.end], cut.start)
    start, end = cut.core_start, cut.core_end
    return Piece(text[cut.start : start], text[start:end], text[end : cut.end], start)
