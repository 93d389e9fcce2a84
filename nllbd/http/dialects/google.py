"""Google's Cloud Translation API, version 2 (Basic): requests become jobs, results answers. Knows no HTTP library.

Texts are HTML unless `format` says otherwise. Fields that are null count as absent. Errors have Google's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from nllbd.config import Settings
from nllbd.errors import MissingField, NllbdError
from nllbd.http import schema
from nllbd.http.dialects.common import AUTO, ErrorAnswer, Texts, as_text, as_texts, check_lengths, check_number, resolve
from nllbd.job import TextTranslation, TranslationJob, TranslationResult
from nllbd.languages import BY_CODE, Language, Languages
from nllbd.text.detect import Detection

MAX_TEXTS = 128
UNDETERMINED = "und"
#: FLORES code → Google's code, where that is not the BCP-47 tag.
CODES: Mapping[str, str] = {
    "zho_Hans": "zh-CN",
    "zho_Hant": "zh-TW",
    "heb_Hebr": "iw",
    "jav_Latn": "jw",
    "nob_Latn": "no",
}
_STATUS = {"text_too_long": 400, "too_many_texts": 400, "unsupported_pair": 400, "language_not_detected": 400}
_MESSAGES = {"text_too_long": "Text too long", "too_many_texts": "Too many text segments"}
#: HTTP status → (google.rpc status, reason)
_REASONS = {
    400: ("INVALID_ARGUMENT", "invalid"),
    401: ("UNAUTHENTICATED", "authError"),
    403: ("PERMISSION_DENIED", "forbidden"),
    404: ("NOT_FOUND", "notFound"),
    405: ("INVALID_ARGUMENT", "httpMethodNotAllowed"),
    408: ("DEADLINE_EXCEEDED", "requestTimeout"),
    413: ("INVALID_ARGUMENT", "uploadTooLarge"),
    415: ("INVALID_ARGUMENT", "badContent"),
    429: ("RESOURCE_EXHAUSTED", "rateLimitExceeded"),
    500: ("INTERNAL", "backendError"),
    501: ("UNIMPLEMENTED", "notImplemented"),
    503: ("UNAVAILABLE", "backendError"),
    504: ("DEADLINE_EXCEEDED", "backendError"),
}


class TranslateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`/language/translate/v2`. `model` is accepted; there is one."""

    q: str | list[str]
    target: str
    source: str | None = None
    format: Literal["html", "text"] | None = None
    model: str | None = None


class TranslationItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """`detectedSourceLanguage` is there when no source was given; `model` when one was asked for."""

    translated_text: str
    detected_source_language: str | None = None
    model: str | None = None


class Translations(msgspec.Struct, frozen=True, kw_only=True):
    translations: tuple[TranslationItem, ...]


class TranslateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One item a text, in order."""

    data: Translations


def parse(
    values: Mapping[str, Any], languages: Languages, settings: Settings, *, client: str, request_id: str
) -> TranslationJob:
    """A request's job. Raises a typed error that names the field at fault."""
    texts = parse_texts(values, settings)
    if not values.get("target"):
        raise MissingField("Required parameter: target", field="target")
    as_text(values["target"], "target")
    request = schema.parse({**values, "q": list(texts.items)}, TranslateRequest, strict=False)
    source = (request.source or "").strip()
    is_given = source and source.lower() != AUTO
    return TranslationJob(
        texts=texts.items,
        target_lang=resolve(request.target, {}, languages, "target").code,
        source_lang=resolve(source, {}, languages, "source").code if is_given else None,
        format=request.format or "html",
        client=client,
        request_id=request_id,
        field="q",
        is_list=texts.is_list,
        guess_language=True,
    )


def parse_texts(values: Mapping[str, Any], settings: Settings) -> Texts:
    """The texts of a request for translation or detection. Raises MissingField, TooManyTexts, TextTooLong …"""
    if values.get("q") in (None, "", []):
        raise MissingField("Required Text", field="q")
    texts = as_texts(values["q"], "q")
    check_number(texts.items, min(MAX_TEXTS, settings.max_texts), "q")
    check_lengths(texts.items, settings.max_request_size, "q", is_list=texts.is_list)
    return texts


def render(result: TranslationResult, job: TranslationJob, model: str | None) -> TranslateResponse:
    """The answer to a whole request. `model` as the request named it."""
    asks = job.source_lang is None
    items = tuple(
        TranslationItem(
            translated_text=item.text,
            detected_source_language=_detected(item) if asks else None,
            model=model or None,
        )
        for item in result.translations
    )
    return TranslateResponse(data=Translations(translations=items))


def code_of(language: Language) -> str:
    """What Google calls a language: `zh-CN`, `iw`, `no`, else its BCP-47 tag."""
    return CODES.get(language.code, language.bcp47)


def render_languages(languages: Languages, *, with_names: bool) -> dict[str, Any]:
    """The answer of `/languages`: names (in English) only for who asks in which language they should be."""
    listed = sorted((code_of(language), language.name) for language in languages)
    items = [{"language": code, "name": name} if with_names else {"language": code} for code, name in listed]
    return {"data": {"languages": items}}


def render_detections(found: list[Detection]) -> dict[str, Any]:
    """The answer of `/detect`: a list of one a text."""
    return {"data": {"detections": [[_detection(item)] for item in found]}}


def render_error(error: NllbdError, request_id: str) -> ErrorAnswer:
    """Google's error object."""
    status = _STATUS.get(error.code, error.status)
    rpc_status, reason = _REASONS.get(status, ("UNKNOWN", "unknown"))
    if error.code == "quota_exceeded":
        reason = "dailyLimitExceeded"
    message = _MESSAGES.get(error.code)
    message = error.message if message is None else f"{message}: {error.message}"
    item = {"message": message, "domain": "global", "reason": reason}
    if error.field:
        item |= {"locationType": "parameter", "location": error.field}
    return ErrorAnswer(status, {"error": {"code": status, "message": message, "errors": [item], "status": rpc_status}})


def _detected(item: TextTranslation) -> str:
    return code_of(BY_CODE[item.source_lang]) if item.source_lang else UNDETERMINED


def _detection(found: Detection) -> dict[str, Any]:
    language = code_of(found.language) if found.language else UNDETERMINED
    return {"language": language, "isReliable": found.language is not None, "confidence": round(found.confidence, 4)}
