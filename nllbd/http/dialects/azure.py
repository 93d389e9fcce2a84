"""Azure Translator, version 3.0: requests become jobs, results become answers. Knows no HTTP library.

Parameters come in the query, texts as a JSON array of `{"Text": …}`. Errors carry Azure's six-digit codes. Lengths of
sentences count code points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from nllbd.config import Settings
from nllbd.errors import InvalidType, InvalidValue, MissingField, NllbdError
from nllbd.http.body import json_type_name
from nllbd.http.dialects.common import ErrorAnswer, check_lengths, check_number, resolve
from nllbd.job import TextFormat, TranslationJob, TranslationResult
from nllbd.languages import BY_CODE, Language, Languages
from nllbd.text.detect import Detection

VERSION = "3.0"
REQUEST_ID_HEADER = "X-RequestId"
#: Each target is a translation of its own.
MAX_TARGETS = 16
#: FLORES code → Azure's code, where that is not the BCP-47 tag. Its `ku` is Central Kurdish.
CODES: Mapping[str, str] = {
    "ckb_Arab": "ku",
    "kas_Arab": "ks",
    "khk_Cyrl": "mn-Cyrl",
    "kmr_Latn": "kmr",
    "lug_Latn": "lug",
    "nya_Latn": "nya",
    "run_Latn": "run",
    "srp_Cyrl": "sr-Cyrl",
    "tgl_Latn": "fil",
}
_ALIASES: Mapping[str, str] = {code.lower(): flores for flores, code in CODES.items()}
_TEXT_TYPES: Mapping[str, TextFormat] = {"plain": "text", "html": "html"}
_UNDETECTED = "en"
#: What was wrong → Azure's code and wording. A field's entry goes before that of the error's code.
_OF_FIELD = {
    "api-version": (400021, "The API version parameter is missing or invalid."),
    "from": (400035, "The source language is not valid."),
    "to": (400036, "The target language is not valid."),
    "language": (400035, "The source language is not valid."),
    "suggestedFrom": (400035, "The source language is not valid."),
    "textType": (400071, "The value is not valid for TextType."),
    "scope": (400001, "The scope parameter is invalid."),
}
_OF_CODE = {
    "invalid_json": (400074, "The body of the request is not valid JSON."),
    "text_too_long": (400050, "The input text is too long."),
    "too_many_texts": (400072, "The array of input text has too many elements."),
    "body_too_large": (400077, "The maximum request size has been exceeded."),
    "invalid_type": (400005, "An input text is missing or invalid."),
    "missing_field": (400005, "An input text is missing or invalid."),
    "unsupported_pair": (400023, "The specified language pair is not valid."),
    "language_not_detected": (400035, "The source language is not valid."),
    "unauthorized": (401000, "The request is not authorized because credentials are missing or invalid."),
    "forbidden": (403000, "The operation is not allowed."),
    "quota_exceeded": (403001, "The operation is not allowed because the subscription has exceeded its free quota."),
    "rate_limited": (429000, "The server rejected the request because the client has exceeded request limits."),
    "body_timeout": (408002, "Request timed out waiting on incoming stream."),
    "unsupported_media_type": (415000, "The Content-Type header is missing or invalid."),
    "not_found": (404000, "The requested resource is not found."),
    "method_not_allowed": (405000, "The request method is not supported for the requested resource."),
}
_STATUS = {"quota_exceeded": 403, "text_too_long": 400, "too_many_texts": 400}


class DetectedLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """A language and how sure it is, 0 to 1."""

    language: str
    score: float


class TranslationItem(msgspec.Struct, frozen=True, kw_only=True):
    """A translation into one of the targets."""

    text: str
    to: str


class TranslatedText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One text, in all targets. `detectedLanguage` is there when no source was given."""

    detected_language: DetectedLanguage | None = None
    translations: tuple[TranslationItem, ...]


class BrokenSentences(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Lengths of one text's sentences, spaces after them included: they add up to the text's."""

    detected_language: DetectedLanguage | None = None
    sent_len: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One job a target, all of the same texts. `targets` are Azure's codes, in the order asked for."""

    jobs: tuple[TranslationJob, ...]
    targets: tuple[str, ...]


def parse(
    query: Mapping[str, Sequence[str]],
    body: Any,
    languages: Languages,
    settings: Settings,
    *,
    client: str,
    request_id: str,
) -> ParsedRequest:
    """A request's jobs. `query`: all values by name. Raises a typed error that names the parameter at fault."""
    check_version(query)
    targets = [resolve(name, _ALIASES, languages, "to") for name in query.get("to", ())]
    if not targets:
        raise MissingField("to is missing: name at least one target language", field="to")
    if len(targets) > MAX_TARGETS:
        raise InvalidValue(f"{len(targets)} target languages; at most {MAX_TARGETS} are taken at once", field="to")
    texts = parse_texts(body, settings)
    source, fallback = _language(query, "from", languages), _language(query, "suggestedFrom", languages)
    jobs = tuple(
        TranslationJob(
            texts=texts,
            target_lang=target.code,
            source_lang=source.code if source else None,
            format=_text_type(query),
            client=client,
            request_id=request_id,
            field="Text",
            is_list=True,
            guess_language=True,
            fallback_lang=fallback.code if fallback else None,
        )
        for target in targets
    )
    return ParsedRequest(jobs, tuple(map(code_of, targets)))


def check_version(query: Mapping[str, Sequence[str]]) -> None:
    """Raise unless the request is of version 3.0."""
    versions = query.get("api-version", ())
    if list(versions) != [VERSION]:
        raise InvalidValue(f"this server speaks api-version={VERSION} only", field="api-version")


def parse_texts(body: Any, settings: Settings) -> tuple[str, ...]:
    """The texts of a body, `[{"Text": …}, …]`; the name in any case. Raises InvalidType, TooManyTexts, TextTooLong."""
    if not isinstance(body, list) or not body:
        found = "an empty one" if body == [] else json_type_name(body)
        raise InvalidType(f'expected an array such as [{{"Text": "…"}}], got {found}', field="Text")
    check_number(body, settings.max_texts, "Text")
    texts = tuple(_text_of(item, index) for index, item in enumerate(body))
    check_lengths(texts, settings.max_request_size, "Text", is_list=True)
    return texts


def parse_language(query: Mapping[str, Sequence[str]], languages: Languages) -> Language | None:
    """The `language` of a request to break sentences; None = detect."""
    return _language(query, "language", languages)


def render(results: Sequence[TranslationResult], request: ParsedRequest) -> list[TranslatedText]:
    """The answer to a whole request, of one result a target."""
    detects = request.jobs[0].source_lang is None
    return [
        TranslatedText(
            detected_language=_detected(items[0].source_lang, items[0].detected_confidence) if detects else None,
            translations=tuple(
                TranslationItem(text=item.text, to=target) for item, target in zip(items, request.targets, strict=True)
            ),
        )
        for items in zip(*(result.translations for result in results), strict=True)
    ]


def code_of(language: Language) -> str:
    """What Azure calls a language: `zh-Hans`, `sr-Cyrl`, `fil`, else its BCP-47 tag."""
    return CODES.get(language.code, language.bcp47)


def render_languages(languages: Languages, query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The answer of `/languages`: the scopes asked for, all by default. There is but translation."""
    check_version(query)
    scopes = [scope.strip() for value in query.get("scope", ()) for scope in value.split(",") if scope.strip()]
    known = ("translation", "transliteration", "dictionary")
    if not set(scopes) <= set(known):
        raise InvalidValue(f"scope must be among {', '.join(known)}", field="scope")
    served = {
        code_of(language): {
            "name": language.name,
            "nativeName": language.native_name or language.name,
            "dir": language.direction,
        }
        for language in languages
    }
    content: dict[str, Any] = {"translation": served, "transliteration": {}, "dictionary": {}}
    return {scope: content[scope] for scope in known if not scopes or scope in scopes}


def render_detections(found: Sequence[Detection]) -> list[dict[str, Any]]:
    """The answer of `/detect`."""
    return [_detection(item) for item in found]


def detected_language(found: Detection) -> DetectedLanguage:
    """The likeliest language of a text, however unlikely."""
    language = found.language or (found.candidates[0][0] if found.candidates else None)
    return _detected(language.code if language else None, found.confidence)


def render_error(error: NllbdError, request_id: str) -> ErrorAnswer:
    """Azure's error object: its six-digit code, its wording, then what was wrong in particular."""
    status = _STATUS.get(error.code, 400 if error.status == 422 else error.status)
    number, wording = _OF_FIELD.get(error.field or "") or _OF_CODE.get(error.code) or (status * 1000, "")
    message = f"{wording} {error.message}".strip()
    content = {"error": {"code": number, "message": message}}
    # The client sleeps for as long as `Retry-After` says, whatever the status: until next month, of a quota.
    is_final = error.code == "quota_exceeded"
    return ErrorAnswer(status, content, {REQUEST_ID_HEADER: request_id}, is_final=is_final)


def _text_of(item: Any, index: int) -> str:
    field = f"Text[{index}]"
    if not isinstance(item, dict):
        raise InvalidType(
            f'{field}: expected an object such as {{"Text": "…"}}, got {json_type_name(item)}', field=field
        )
    found = [value for name, value in item.items() if name.lower() == "text"]
    if len(found) != 1 or not isinstance(found[0], str):
        got = json_type_name(found[0]) if found else "none"
        raise InvalidType(f"{field}: expected one string, got {got}", field=field)
    return found[0]


def _language(query: Mapping[str, Sequence[str]], name: str, languages: Languages) -> Language | None:
    values = [value for value in query.get(name, ()) if value]
    if len(values) > 1:
        raise InvalidValue(f"{name} is given {len(values)} times", field=name)
    return resolve(values[0], _ALIASES, languages, name) if values else None


def _text_type(query: Mapping[str, Sequence[str]]) -> TextFormat:
    values = query.get("textType", ())
    try:
        return _TEXT_TYPES[(values[-1] if values else "plain").lower()]
    except KeyError:
        raise InvalidValue("textType must be plain or html", field="textType") from None


def _detected(code: str | None, confidence: float | None) -> DetectedLanguage:
    if code is None:
        return DetectedLanguage(language=_UNDETECTED, score=0.0)
    return DetectedLanguage(language=code_of(BY_CODE[code]), score=round(confidence or 0.0, 4))


def _detection(found: Detection) -> dict[str, Any]:
    best = detected_language(found)
    others = [
        {"language": code_of(language), "score": round(score, 4), **_ABILITIES}
        for language, score in found.candidates[1:]
    ]
    answer = {"language": best.language, "score": best.score, **_ABILITIES}
    return answer | ({"alternatives": others} if others else {})


_ABILITIES = {"isTranslationSupported": True, "isTransliterationSupported": False}
