"""LibreTranslate's API: its requests become jobs, results become its answers. Knows no HTTP library.

Error texts that its clients look for are LibreTranslate's own, and so are statuses: whatever is wrong with a request is
400, a wrong key 403. Confidences go from 0 to 100. Where it cannot tell a language it says English, with confidence 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nllbd.config import Settings
from nllbd.errors import (
    InvalidValue,
    MissingField,
    NllbdError,
    NoCredentials,
    TextTooLong,
    TooManyTexts,
    UnknownLanguage,
    UnsupportedPair,
)
from nllbd.http import schema
from nllbd.http.dialects.common import AUTO, ErrorAnswer, Texts, as_text, as_texts, resolve
from nllbd.job import TextFormat, TextTranslation, TranslationJob, TranslationResult
from nllbd.languages import BY_CODE, Language, Languages
from nllbd.text.detect import Detection

#: Codes of its own: Chinese (traditional) and Brazilian Portuguese, in versions before 1.7 and after.
ALIASES: Mapping[str, str] = {"zt": "zho_Hant", "zh": "zho_Hans", "pb": "por_Latn"}
WRONG_KEY = "Invalid API key"
NO_KEY = "Please contact the server operator to get an API key"
NO_SUGGESTIONS = "Suggestions are disabled on this server."
_UNDETECTED = "en"
_INVALID = frozenset({"text_too_long", "too_many_texts", "unsupported_pair", "language_not_detected"})


class TranslateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /translate`, LibreTranslate's form. Fields that are not here are ignored."""

    q: str | list[str]
    source: str
    target: str
    format: str | None = None
    alternatives: int | None = None
    api_key: str | None = None


class DetectedLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """A language and how sure it is, 0 to 100."""

    confidence: float
    language: str


class TranslateResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Each field is a list where `q` was one. `detectedLanguage` is there for `auto` only."""

    translated_text: str | tuple[str, ...]
    detected_language: DetectedLanguage | tuple[DetectedLanguage, ...] | None = None
    alternatives: tuple[str, ...] | tuple[tuple[str, ...], ...] | None = None


def parse(
    values: Mapping[str, Any],
    languages: Languages,
    settings: Settings,
    *,
    client: str,
    request_id: str,
    most_alternatives: int,
) -> TranslationJob:
    """A request's job. `most_alternatives` are given besides the translation, however many are asked for.

    Raises a typed error whose message is LibreTranslate's where it has one.
    """
    for name in ("q", "source", "target"):
        if not values.get(name):
            raise MissingField(f"Invalid request: missing {name} parameter", field=name)
    texts = _check_texts(as_texts(values["q"], "q"), settings)
    target = _resolve(as_text(values["target"], "target"), languages, "target")
    source = as_text(values["source"], "source")
    request = schema.parse(dict(values), TranslateRequest, strict=False)
    wanted = max(0, request.alternatives or 0)
    return TranslationJob(
        texts=texts.items,
        target_lang=target.code,
        source_lang=None if source.strip().lower() == AUTO else _resolve(source, languages, "source").code,
        num_alternatives=min(wanted, most_alternatives) + 1 if wanted and most_alternatives else 0,
        format=_format(request.format),
        client=client,
        request_id=request_id,
        field="q",
        is_list=texts.is_list,
        guess_language=True,
    )


def credentials(values: Mapping[str, Any]) -> list[str]:
    """The keys in a request's body or query. Raises InvalidType for one that is no string."""
    key = values.get("api_key")
    return [as_text(key, "api_key")] if key else []


def render(result: TranslationResult, job: TranslationJob) -> TranslateResponse:
    """The answer to a whole request."""
    items = result.translations
    texts = tuple(item.text for item in items)
    detected = tuple(_detected(item) for item in items) if job.source_lang is None else None
    others = tuple(_others(item) for item in items) if job.num_alternatives else None
    if job.is_list:
        return TranslateResponse(translated_text=texts, detected_language=detected, alternatives=others)
    return TranslateResponse(
        translated_text=texts[0],
        detected_language=detected[0] if detected else None,
        alternatives=others[0] if others is not None else None,
    )


def render_detection(found: Detection) -> tuple[DetectedLanguage, ...]:
    """The answer of `/detect`: candidates, the likeliest first; never none."""
    candidates = tuple(
        DetectedLanguage(confidence=_percent(confidence), language=language.bcp47)
        for language, confidence in found.candidates
    )
    return candidates or (DetectedLanguage(confidence=0.0, language=_UNDETECTED),)


def detection_text(values: Mapping[str, Any], settings: Settings) -> str:
    """The text of a request for detection; a list is taken as one text. Raises MissingField, TextTooLong …"""
    if not values.get("q"):
        raise MissingField("Invalid request: missing q parameter", field="q")
    return "\n".join(_check_texts(as_texts(values["q"], "q"), settings).items)


def frontend_settings(languages: Languages, settings: Settings, *, needs_key: bool) -> dict[str, Any]:
    """The answer of `/frontend/settings`."""
    served = list(languages)
    target = served[1] if len(served) > 1 else served[0]
    return {
        "charLimit": settings.max_request_size,
        "frontendTimeout": 500,
        "apiKeys": needs_key,
        "keyRequired": needs_key,
        "suggestions": False,
        "filesTranslation": False,
        "supportedFilesFormat": [],
        "language": {
            "source": {"code": AUTO, "name": "Auto Detect"},
            "target": {"code": target.bcp47, "name": target.name},
        },
    }


def render_error(error: NllbdError, request_id: str) -> ErrorAnswer:
    """`{"error": "…"}` with the status that LibreTranslate would give."""
    status, message = error.status, error.message
    if error.code in _INVALID:
        status = 400
    elif error.code == "unauthorized":
        status, message = 403, NO_KEY if isinstance(error, NoCredentials) else WRONG_KEY
    elif status == 429:
        message = f"Slowdown: {message}"
    return ErrorAnswer(status, {"error": message})


def _check_texts(texts: Texts, settings: Settings) -> Texts:
    if len(texts.items) > settings.max_texts:
        raise TooManyTexts(_limit_message(len(texts.items), settings.max_texts), field="q")
    longest = max(map(len, texts.items))
    if longest > settings.max_request_size:
        raise TextTooLong(_limit_message(longest, settings.max_request_size), field="q")
    return texts


def _limit_message(size: int, limit: int) -> str:
    return f"Invalid request: request ({size}) exceeds text limit ({limit})"


def _resolve(name: str, languages: Languages, field: str) -> Language:
    try:
        return resolve(name, ALIASES, languages, field)
    except (UnknownLanguage, UnsupportedPair):
        raise UnknownLanguage(f"{name[:80]} is not supported", field=field) from None


def _format(name: str | None) -> TextFormat:
    if name in (None, "", "text"):
        return "text"
    if name == "html":
        return "html"
    raise InvalidValue(f"{str(name)[:80]} format is not supported", field="format")


def _detected(item: TextTranslation) -> DetectedLanguage:
    if item.source_lang is None:
        return DetectedLanguage(confidence=0.0, language=_UNDETECTED)
    return DetectedLanguage(
        confidence=_percent(item.detected_confidence or 0.0), language=BY_CODE[item.source_lang].bcp47
    )


def _others(item: TextTranslation) -> tuple[str, ...]:
    """The alternatives that differ from the translation and from each other."""
    return tuple(dict.fromkeys(text for text in item.alternatives if text != item.text))


def _percent(confidence: float) -> float:
    return round(confidence * 100, 1)
