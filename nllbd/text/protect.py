"""Placeholders, markup, URLs and e-mail addresses survive a translation; so do characters the vocabulary lacks.

A model copies such things most of the time and mangles them the rest. So: look whether they survived, and if not try
another way. `ways` gives the ways of one core, the most natural first:

1. raw: as it stands. What any other NLLB server does, and the only way of a core without anything to protect.
2. masked: each span replaced by `(1)`, `(2)` …, which models copy well (of nine kinds of mask tried on the
   demonstration model, 45 of 48 sentences kept these; letters, names and bare numbers 7 to 35). Goes first where the
   vocabulary lacks characters of a span or of a word, for raw cannot succeed then.
3. split: what stands between the spans is translated alone. Never loses a span, reads worse; said in a warning.

Digits that normalization would make others of (`½`, `²`, `Ⅳ`, `①`) are protected like that, too, and never go raw:
`10²` must not become `102`.

`<unk>` in an output is replaced by the source's character where it is plain which one is meant. Knows no engine.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from nllbd.text.guard import UNK
from nllbd.text.spans import find_spans, is_language
from nllbd.text.tokenizer import UNK_MARK, Tokenizer

PLACEHOLDER_LOST = "placeholder_lost"
PLACEHOLDER_SPLIT = "placeholder_split"

Span = tuple[int, int]

_MASK = re.compile(r"[(（]\s*(\d{1,4})\s*[)）]")
_MARK_AND_SPACE = re.compile(f"^{UNK_MARK} | ?{UNK_MARK}")
_MAX_MASKED = 9
_MAX_UNIT = 3  # letters of a word that is rather a unit or a formula: `km²`, `H₂O`, `C#`
_MAX_GLUED = 32
_ALNUM_BEFORE, _ALNUM_AFTER = re.compile(r"(?:\d+[.,])*[^\W_]+\Z"), re.compile(r"\A[^\W_]+")
_DIGITS_BEFORE, _DIGITS_AFTER = re.compile(r"\d[\d.,]*\Z"), re.compile(r"\A\d+")
_NUMERAL_KINDS = frozenset({"No", "Nl", "Sm", "Ps", "Pe"})
_CHANGING = re.compile(r"<(?:super|sub|fraction|circle|compat)>")
_SYMBOLS = frozenset("%@#&*/\\§‰_")  # punctuation to Unicode, but no other sign can stand for them


class Restored(msgspec.Struct, frozen=True):
    """What became of a core. `warnings`: placeholder_lost (try the next way), placeholder_split, unk."""

    text: str
    warnings: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything that had to survive did."""
        return PLACEHOLDER_LOST not in self.warnings


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A run of characters that the vocabulary lacks; `glued`: whether a letter or digit stands (before, after) it."""

    text: str
    glued: tuple[bool, bool]

    @property
    def matters(self) -> bool:
        """Words, numbers and symbols must not vanish. A rare letter within a word is no loss when the word is
        translated, nor is a stroke between two words, and a dash or a quotation mark may have become another one.
        """
        kinds = {unicodedata.category(char)[0] for char in self.text}
        if not kinds.isdisjoint("NS"):
            return True
        return ("L" in kinds and not any(self.glued)) or (not _SYMBOLS.isdisjoint(self.text) and not all(self.glued))


class Way(msgspec.Struct, frozen=True):
    """One way to translate a core: translate each of `texts` (there may be none), hand the outputs to `restore`."""

    kind: Literal["raw", "masked", "split"]
    core: str
    texts: tuple[str, ...]
    _template: tuple[str | None, ...]  # None: the next output; else verbatim
    _masked: tuple[tuple[int, str], ...]  # number of a mask, what it stands for
    _unknown: tuple[tuple[_Unknown, ...], ...]  # of each text

    def restore(self, outputs: Sequence[str]) -> Restored:
        """The core's translation, from the translations of `texts` (as many, in order)."""
        repaired = [_without_marks(*pair) for pair in zip(outputs, self._unknown, strict=True)]
        rest = iter(text for text, _ in repaired)
        text = "".join(next(rest) if part is None else part for part in self._template)
        warnings = [] if all(is_complete for _, is_complete in repaired) else [UNK]
        if self.kind == "split":
            warnings.append(PLACEHOLDER_SPLIT if self.texts else UNK)
            return Restored(text, tuple(warnings))
        if self._masked:
            text, is_complete = _unmasked(text, dict(self._masked))
            warnings += [] if is_complete else [PLACEHOLDER_LOST]
        if not _holds(text, self.core):
            warnings.append(PLACEHOLDER_LOST)
        return Restored(text, tuple(dict.fromkeys(warnings)))


def ways(core: str, tokenizer: Tokenizer) -> Iterator[Way]:
    """The ways to translate `core`, best first; there is at least one, and the last one always restores completely."""
    unspeakable = _unspeakable(core, tokenizer)
    numerals = [_widened(core, span) for span in _numerals(core, unspeakable)]
    spans = _merged(find_spans(core) + numerals)
    if not spans and not unspeakable:
        yield Way("raw", core, (core,), (None,), (), ((),))
        return
    unknown = [_widened(core, span) for span in unspeakable if _unknown_run(core, span).matters]
    if not unknown and not numerals and not any(tokenizer.unknown_spans(core[start:end]) for start, end in spans):
        yield _way("raw", core, (core,), tokenizer)
    if not spans and not unknown:
        return
    merged = _merged(spans + unknown)
    if len(merged) <= _MAX_MASKED:
        masked, text = _with_masks(core, merged)
        if is_language(text):
            yield _way("masked", core, (text,), tokenizer, masked=masked)
    if spans or not is_language(_with_masks(core, merged)[1]):
        template, texts = _fragments(core, spans or merged)
        yield _way("split", core, texts, tokenizer, template)
    else:
        yield _way("raw", core, (core,), tokenizer)


def _way(
    kind: Literal["raw", "masked", "split"],
    core: str,
    texts: tuple[str, ...],
    tokenizer: Tokenizer,
    template: tuple[str | None, ...] = (None,),
    masked: tuple[tuple[int, str], ...] = (),
) -> Way:
    return Way(kind, core, texts, template, masked, tuple(_unknown(text, tokenizer) for text in texts))


def _unspeakable(text: str, tokenizer: Tokenizer) -> list[Span]:
    """What the vocabulary lacks: whole characters, also where it lacks but a part of one (`℃` is `°C` to it)."""
    return [(start, max(end, start + 1)) for start, end in tokenizer.unknown_spans(text)]


def _numerals(core: str, unknown: list[Span]) -> Iterator[Span]:
    """Digits and their signs that normalization makes others of, and what the vocabulary lacks between two digits."""
    if not core.isascii():
        for i, char in enumerate(core):
            if unicodedata.category(char) in _NUMERAL_KINDS and _CHANGING.match(unicodedata.decomposition(char)):
                yield i, i + 1
    for start, end in unknown:
        if core[start - 1 : start].isdigit() and core[end : end + 1].isdigit():
            yield start, end


def _widened(core: str, span: Span) -> Span:
    """The span with the digits it stands at; with letters too where they are a unit or a formula and no word."""
    start, end = span
    if not any(unicodedata.category(char)[0] in "NS" or char in _SYMBOLS for char in core[start:end]):
        return span
    left, right = core[max(0, start - _MAX_GLUED) : start], core[end : end + _MAX_GLUED]
    before, after = _ALNUM_BEFORE.search(left), _ALNUM_AFTER.search(right)
    letters = [char for match in (before, after) if match for char in match[0] if char.isalpha()]
    if len(letters) > _MAX_UNIT or any(unicodedata.category(char) not in ("Lu", "Ll") for char in letters):
        before, after = _DIGITS_BEFORE.search(left), _DIGITS_AFTER.search(right)
    return start - (len(before[0]) if before else 0), end + (len(after[0]) if after else 0)


def _merged(spans: list[Span]) -> list[Span]:
    """The spans in order, those that overlap made one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _with_masks(core: str, spans: list[Span]) -> tuple[tuple[tuple[int, str], ...], str]:
    """What each mask stands for, and the core with `(n)` for each span. Numbers the core has itself are left out."""
    taken = {match[1] for match in _MASK.finditer(core)}
    free = (n for n in range(1, len(spans) + len(taken) + 1) if str(n) not in taken)
    masked, parts, end = [], [], 0
    for (start, stop), number in zip(spans, free, strict=False):
        masked.append((number, core[start:stop]))
        parts += [core[end:start], f"({number})"]
        end = stop
    return tuple(masked), "".join(parts) + core[end:]


def _unmasked(text: str, span_of: dict[int, str]) -> tuple[str, bool]:
    """The text with its masks replaced, and whether each was there exactly once."""
    found = [int(match[1]) for match in _MASK.finditer(text)]
    if sorted(number for number in found if number in span_of) != sorted(span_of):
        return text, False
    return _MASK.sub(lambda match: span_of.get(int(match[1]), match[0]), text), True


def _fragments(core: str, spans: list[Span]) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """Template and texts of what stands between the spans."""
    template: list[str | None] = []
    texts = []
    end = 0
    for start, stop in (*spans, (len(core), len(core))):
        between = core[end:start]
        text = between.strip()
        if is_language(text):
            at = between.index(text)
            template += [between[:at], None, between[at + len(text) :]]
            texts.append(text)
        else:
            template.append(between)
        template.append(core[start:stop])
        end = stop
    return tuple(template), tuple(texts)


def _holds(text: str, core: str) -> bool:
    """Whether each span of the core stands in `text` as often, and no pair of tags has lost what it enclosed."""
    wanted = _spans_and_gaps(core)
    if not wanted:
        return True
    found = _spans_and_gaps(text)
    there = Counter(span for span, _, _ in found)
    if any(there[span] != number for span, number in Counter(span for span, _, _ in wanted).items()):
        return False
    enclosing = {(span, after) for span, gap, after in wanted if after.startswith("</") and _has_letter(gap)}
    return enclosing <= {(span, after) for span, gap, after in found if _has_letter(gap)}


def _spans_and_gaps(text: str) -> list[tuple[str, str, str]]:
    """(span, what stands between it and the next one, the next one); the last gap counts as none."""
    spans = find_spans(text)
    following = (*spans, (0, 0))[1:]
    return [(text[a:b], text[b:c], text[c:d]) for (a, b), (c, d) in zip(spans, following, strict=True)]


def _has_letter(text: str) -> bool:
    return any(map(str.isalnum, text))


def _unknown(text: str, tokenizer: Tokenizer) -> tuple[_Unknown, ...]:
    return tuple(_unknown_run(text, span) for span in _unspeakable(text, tokenizer))


def _unknown_run(text: str, span: Span) -> _Unknown:
    return _Unknown(text[slice(*span)], _glued(text, *span))


def _glued(text: str, start: int, end: int) -> tuple[bool, bool]:
    return text[start - 1 : start].isalnum(), text[end : end + 1].isalnum()


def _without_marks(output: str, unknown: tuple[_Unknown, ...]) -> tuple[str, bool]:
    """The output with each `UNK_MARK` replaced by the source's unknown run, and whether nothing was lost.

    They are replaced when there are as many as in the source, or all of the source are the same, and they stand as
    they stood there: a mark inside a word does not mean a dash between two. Other marks are taken out. Without marks
    something was lost where a run that matters is not in the output.
    """
    num_marks = output.count(UNK_MARK)
    if not num_marks:
        return output, all(run.text in output for run in unknown if run.matters)
    runs = unknown
    if len(unknown) != num_marks and len({run.text for run in unknown}) == 1:
        runs = unknown[:1] * num_marks
    stands = [_glued(output, i, i + 1) for i, char in enumerate(output) if char == UNK_MARK]
    if stands != [run.glued for run in runs]:
        return _MARK_AND_SPACE.sub("", output), False
    texts = iter(run.text for run in runs)
    return "".join(next(texts) if char == UNK_MARK else char for char in output), True
