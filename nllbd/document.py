"""From texts to segments and back: what of a job has to be translated, and how the results become its answer.

Planning is pure and thread-safe, so that large texts are planned off the event loop. Knows no engine and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

from nllbd.errors import LanguageNotDetected
from nllbd.job import TextFormat, TextTranslation, TranslationJob
from nllbd.languages import Language
from nllbd.segments import Segment, SegmentTranslation, prepare
from nllbd.text import html, segment
from nllbd.text.detect import Detector
from nllbd.text.glossary import Glossary, restore
from nllbd.text.spans import is_language
from nllbd.text.tokenizer import Tokenizer

SAME_LANGUAGE = "same_language"

#: Source language and core: equal segments of a job are translated once. Not their ids, for what the vocabulary lacks
#: has the same id whatever it is.
Key = tuple[str, str]
Translations = dict[Key, SegmentTranslation]
_NO_TERMS: Mapping[str, str] = MappingProxyType({})


class Part(msgspec.Struct, frozen=True):
    """A stretch of the answer: `before`, a translation, `after`. Without `key` only what stands around it.

    `span` is the segment's place in the source, [start, end) in code points; in HTML the place of the run between two
    tags that holds it, with a glossary the place among its placeholders. `terms`: what placeholders stand for.
    """

    before: str
    after: str = ""
    key: Key | None = None
    span: tuple[int, int] = (0, 0)
    terms: Mapping[str, str] = _NO_TERMS


class TextPlan(msgspec.Struct, frozen=True):
    """One text, ready to be translated. Without parts it is returned as it is, with `warnings`.

    `segments` has each distinct segment of its parts once, in order.
    """

    text: str
    format: TextFormat
    source: Language | None
    target: Language
    confidence: float | None = None
    parts: tuple[Part, ...] = ()
    segments: tuple[Segment, ...] = ()
    warnings: tuple[str, ...] = ()


class Planner:
    """Makes plans for one model. Holds nothing that changes; safe in any thread.

    `max_tokens` is the longest segment the model gets, language code and `</s>` not counted.
    """

    def __init__(self, tokenizer: Tokenizer, detector: Detector, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._detector = detector
        self._max_tokens = min(max_tokens, segment.MAX_TOKENS)

    def plan(self, job: TranslationJob, index: int, source: Language | None, target: Language) -> TextPlan:
        """The plan of text `index`. `source` None = detect.

        Raises LanguageNotDetected, or UnsupportedPair for a language that is not the model's, naming the text.
        """
        text = job.texts[index]
        if not text or text.isspace():
            return TextPlan(text, job.format, source, target)
        confidence = None
        if source is None:
            visible = html.visible_text(text) if job.format == "html" else text
            if not is_language(visible):
                return TextPlan(text, job.format, None, target)
            source, confidence = self._detect(visible, job, index)
        if source.code == target.code:
            return TextPlan(text, job.format, source, target, confidence, warnings=(SAME_LANGUAGE,))
        make = self._html_parts if job.format == "html" else self._text_parts
        parts = tuple(make(text, source, target, job.glossary))
        cores = dict.fromkeys(part.key[1] for part in parts if part.key)
        segments = tuple(prepare(core, source, self._tokenizer) for core in cores)
        return TextPlan(text, job.format, source, target, confidence, parts, segments)

    def _detect(self, text: str, job: TranslationJob, index: int) -> tuple[Language, float]:
        found = self._detector.detect(text)
        if found.language is not None:
            return found.language, found.confidence
        field = job.text_field(index)
        if found.foreign is not None:
            self._tokenizer.languages.resolve(found.foreign.code, field)
        if job.fallback_lang is not None:
            return self._tokenizer.languages.resolve(job.fallback_lang), 0.0
        if job.guess_language and found.candidates:
            return found.candidates[0]
        raise LanguageNotDetected("the language of this text could not be told; give the source language", field=field)

    def _html_parts(self, text: str, source: Language, target: Language, glossary: Glossary | None) -> Iterator[Part]:
        for run in html.parse(text):
            if run.is_markup:
                yield Part(run.raw)
                continue
            span = (run.start, run.start + len(run.raw))
            for part in self._text_parts(run.text, source, target, glossary):
                yield Part(html.escape(part.before), html.escape(part.after), part.key, span, part.terms)

    def _text_parts(self, text: str, source: Language, target: Language, glossary: Glossary | None) -> Iterator[Part]:
        terms = _NO_TERMS
        if glossary is not None:
            masked = glossary.mask(text)
            text, terms = masked.text, masked.terms
        pieces = segment.split(text, source, self._max_tokens, self._tokenizer.count_tokens)
        for piece, (before, after) in zip(pieces, segment.frames(pieces, source, target), strict=True):
            if piece.core:
                span = (piece.start, piece.start + len(piece.core))
                yield Part(before, after, (source.code, piece.core), span, terms)
            else:
                yield Part(before + after, terms=terms)


def assemble(plan: TextPlan, done: Translations, num_alternatives: int) -> TextTranslation:
    """The translation of a text whose segments are all done."""
    source = plan.source.code if plan.source else None
    if not plan.parts:
        return TextTranslation(plan.text, source, plan.confidence, (plan.text,) * num_alternatives, plan.warnings)
    found = [done[part.key] for part in plan.parts if part.key]
    return TextTranslation(
        text=_join(plan, done, 0),
        source_lang=source,
        detected_confidence=plan.confidence,
        alternatives=tuple([_join(plan, done, rank) for rank in range(num_alternatives)]),
        warnings=tuple(dict.fromkeys([warning for segment in found for warning in segment.warnings])),
    )


def write_part(plan: TextPlan, part: Part, done: Translations, rank: int = 0) -> str:
    """A part as it stands in the answer, with its translation of `rank`: 0 = best; the last one if there are fewer."""
    if part.key is None:
        return _with_terms(plan, part, part.before + part.after)
    texts = done[part.key].texts
    text = texts[min(rank, len(texts) - 1)]
    written = part.before + (html.escape(text) if plan.format == "html" else text) + part.after
    return _with_terms(plan, part, written) if part.terms else written


def _with_terms(plan: TextPlan, part: Part, text: str) -> str:
    """A part's text with the glossary's translations in place of its placeholders."""
    if plan.format == "html":
        return restore(text, {name: html.escape(term) for name, term in part.terms.items()})
    return restore(text, part.terms)


def _join(plan: TextPlan, done: Translations, rank: int) -> str:
    return "".join([write_part(plan, part, done, rank) for part in plan.parts])
