"""From texts to segments and back: what of a job has to be translated, and how the results become its answer.

Planning is pure and thread-safe, so that large texts are planned off the event loop. Knows no engine and no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nllbd.errors import LanguageNotDetected
from nllbd.job import TextFormat, TextTranslation, TranslationJob
from nllbd.languages import Language
from nllbd.text import html, segment
from nllbd.text.detect import Detector
from nllbd.text.segment import Piece
from nllbd.text.tokenizer import Tokenizer

SAME_LANGUAGE = "same_language"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of text between two tags, cut into pieces; `source_ids[i]` is None where piece i passes through.

    [offset, end) is the run's place in the text. A run of markup has no pieces, only `markup`, which is kept.
    """

    offset: int
    end: int
    markup: str = ""
    pieces: tuple[Piece, ...] = ()
    source_ids: tuple[tuple[int, ...] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPlan:
    """One text, ready to be translated. Without chunks it is returned as it is, with `warnings`."""

    text: str
    format: TextFormat
    source: Language | None
    target: Language
    confidence: float | None = None
    chunks: tuple[Chunk, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentTranslation:
    """What came of one segment: its hypotheses as text, best first, and what is to be said about the best."""

    texts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


#: The translations of a job's segments by their ids: equal segments of a job are translated once.
Translations = dict[tuple[int, ...], SegmentTranslation]


class Planner:
    """Makes plans for one model. Holds nothing that changes; safe in any thread.

    `max_tokens` is the longest segment the model gets, language code and `</s>` not counted.
    """

    def __init__(self, tokenizer: Tokenizer, detector: Detector, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._detector = detector
        self._max_tokens = max_tokens

    def plan(self, job: TranslationJob, index: int, source: Language | None, target: Language) -> TextPlan:
        """The plan of text `index`. `source` None = detect. Raises LanguageNotDetected naming the text."""
        text = job.texts[index]
        if not text or text.isspace():
            return TextPlan(text, job.format, source, target)
        confidence = None
        if source is None:
            source, confidence = self._detect(job, index)
        if source.code == target.code:
            return TextPlan(text, job.format, source, target, confidence, warnings=(SAME_LANGUAGE,))
        chunks = self._html_chunks(text, source) if job.format == "html" else (self._chunk(text, 0, len(text), source),)
        return TextPlan(text, job.format, source, target, confidence, chunks)

    def _detect(self, job: TranslationJob, index: int) -> tuple[Language, float]:
        text = job.texts[index]
        found = self._detector.detect(html.visible_text(text) if job.format == "html" else text)
        if found.language is None:
            raise LanguageNotDetected(
                "the language of this text could not be told; give source_lang", field=job.text_field(index)
            )
        return found.language, found.confidence

    def _html_chunks(self, text: str, source: Language) -> tuple[Chunk, ...]:
        return tuple(
            Chunk(run.start, run.end, run.raw) if run.is_markup else self._chunk(run.text, run.start, run.end, source)
            for run in html.parse(text)
        )

    def _chunk(self, text: str, start: int, end: int, source: Language) -> Chunk:
        pieces = tuple(segment.split(text, source, self._max_tokens, self._tokenizer.count_tokens))
        ids = tuple(self._tokenizer.encode(piece.core, source.code) if piece.core else None for piece in pieces)
        return Chunk(start, end, pieces=pieces, source_ids=ids)


def assemble(plan: TextPlan, done: Translations, num_alternatives: int) -> TextTranslation:
    """The translation of a text whose segments are all done."""
    if not plan.chunks:
        alternatives = (plan.text,) * num_alternatives
        source = plan.source.code if plan.source else None
        return TextTranslation(plan.text, source, plan.confidence, alternatives, plan.warnings)
    assert plan.source is not None
    ids = [source_ids for chunk in plan.chunks for source_ids in chunk.source_ids if source_ids is not None]
    warnings = dict.fromkeys(warning for source_ids in ids for warning in done[source_ids].warnings)
    return TextTranslation(
        text=_join(plan, done, 0),
        source_lang=plan.source.code,
        detected_confidence=plan.confidence,
        alternatives=tuple(_join(plan, done, rank) for rank in range(num_alternatives)),
        warnings=(*plan.warnings, *warnings),
    )


def _join(plan: TextPlan, done: Translations, rank: int) -> str:
    return "".join(_join_chunk(plan, chunk, done, rank) for chunk in plan.chunks)


def _join_chunk(plan: TextPlan, chunk: Chunk, done: Translations, rank: int) -> str:
    if not chunk.pieces:
        return chunk.markup
    return finish_run(plan, chunk.pieces, piece_texts(chunk, done, rank))


def piece_texts(chunk: Chunk, done: Translations, rank: int) -> list[str]:
    """Each piece's translation of `rank` (0 = best; the last there is, if there are fewer), or its own core."""
    return [_translated(piece, ids, done, rank) for piece, ids in zip(chunk.pieces, chunk.source_ids, strict=True)]


def finish_run(plan: TextPlan, pieces: Sequence[Piece], texts: Sequence[str]) -> str:
    """Pieces and their translations as text of the answer: joints as the target has them, escaped in HTML."""
    assert plan.source is not None
    joined = segment.join(list(pieces), texts, plan.source, plan.target)
    return html.escape(joined) if plan.format == "html" else joined


def _translated(piece: Piece, ids: tuple[int, ...] | None, done: Translations, rank: int) -> str:
    if ids is None:
        return piece.core
    texts = done[ids].texts
    return texts[min(rank, len(texts) - 1)]
