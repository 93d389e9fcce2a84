"""The native API: its requests become jobs, results become its answers. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nllbd.config import Settings
from nllbd.errors import EmptyText, TextTooLong, TooManyTexts
from nllbd.http import schema
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult, Usage
from nllbd.languages import Languages
from nllbd.sched.sequence import Priority

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A job and how its answer is wanted."""

    job: TranslationJob
    stream: bool


def parse(
    payload: dict[str, Any], languages: Languages, settings: Settings, client: str, request_id: str
) -> ParsedRequest:
    """A request's job, with languages resolved. Raises a typed error that names the field at fault."""
    request = schema.parse(payload, schema.TranslateRequest)
    texts = check_texts(request.text, settings)
    target = languages.resolve(request.target_lang, "target_lang")
    source = None
    if request.source_lang is not None and request.source_lang.strip().lower() != AUTO:
        source = languages.resolve(request.source_lang, "source_lang").code
    job = TranslationJob(
        texts=texts,
        target_lang=target.code,
        source_lang=source,
        num_beams=request.num_beams,
        length_penalty=request.length_penalty,
        early_stopping=request.early_stopping,
        max_length=request.max_length,
        num_alternatives=request.alternatives or 0,
        format=request.format or "text",
        priority=Priority.BULK if request.priority == "bulk" else Priority.INTERACTIVE,
        timeout_s=request.timeout_s,
        client=client,
        request_id=request_id,
        is_list=isinstance(request.text, list),
    )
    return ParsedRequest(job, bool(request.stream))


def check_texts(text: str | list[str], settings: Settings) -> tuple[str, ...]:
    """The texts of a request. Raises EmptyText, TooManyTexts, TextTooLong."""
    if not text:
        raise EmptyText("text is empty; give a text, or a list with at least one", field="text")
    if isinstance(text, str):
        _check_length(text, "text", settings.max_request_size)
        return (text,)
    if len(text) > settings.max_texts:
        raise TooManyTexts(f"{len(text)} texts; this server takes at most {settings.max_texts}", field="text")
    for index, item in enumerate(text):
        _check_length(item, f"text[{index}]", settings.max_request_size)
    return tuple(text)


def render(result: TranslationResult, job: TranslationJob, model: str) -> schema.TranslateResponse:
    """The answer to a whole request."""
    items = tuple(
        schema.TranslationItem(
            text=item.text,
            source_lang=item.source_lang,
            detected_confidence=item.detected_confidence,
            alternatives=item.alternatives,
            warnings=item.warnings,
        )
        for item in result.translations
    )
    return schema.TranslateResponse(
        translated_text=None if job.is_list else items[0].text,
        translations=items,
        target_lang=result.target_lang,
        model=model,
        usage=_usage(result.usage),
        duration_ms=_milliseconds(result.duration_s),
    )


def render_event(event: SegmentEvent) -> schema.SegmentItem:
    """One `segment` event."""
    return schema.SegmentItem(
        text_index=event.text_index,
        segment_index=event.segment_index,
        source_span=event.source_span,
        text=event.text,
        warnings=event.warnings,
    )


def render_end(result: TranslationResult, model: str) -> schema.StreamEnd:
    """The `done` event."""
    return schema.StreamEnd(
        target_lang=result.target_lang,
        model=model,
        usage=_usage(result.usage),
        duration_ms=_milliseconds(result.duration_s),
    )


def render_languages(languages: Languages) -> tuple[schema.LanguageItem, ...]:
    """LibreTranslate's list plus the model's codes; every language translates into every other."""
    served: Sequence[Any] = tuple(languages)
    targets = tuple(language.bcp47 for language in served)
    return tuple(
        schema.LanguageItem(code=language.bcp47, name=language.name, targets=targets, flores=language.code)
        for language in served
    )


def _usage(usage: Usage) -> schema.UsageItem:
    return schema.UsageItem(characters=usage.characters, segments=usage.segments, cached_segments=usage.cached_segments)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _check_length(text: str, field: str, most: int) -> None:
    if len(text) > most:
        raise TextTooLong(f"{field} has {len(text)} characters; this server takes at most {most}", field=field)
