"""DeepL's API, version 2: its requests become jobs, results become its answers. Knows no HTTP library.

Errors are `{"message": …, "detail": …}`: `message` is DeepL's wording, `detail` says what was wrong and what to do.
A quota used up is 456, a wrong key 403.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from nllbd.config import Settings
from nllbd.errors import InvalidValue, MissingField, NllbdError
from nllbd.http import schema
from nllbd.http.dialects.common import ErrorAnswer, as_text, as_texts, check_lengths, check_number, resolve
from nllbd.job import TranslationJob, TranslationResult
from nllbd.languages import BY_CODE, Language, Languages

MAX_TEXTS = 50
#: What an account without a quota is told that it may use, as DeepL tells its unlimited accounts.
UNLIMITED = 1_000_000_000_000
_STATUS = {"unauthorized": 403, "quota_exceeded": 456, "too_many_texts": 400}
_MESSAGES = {
    "unauthorized": "Authorization failed. Please supply a valid DeepL-Auth-Key via the Authorization header.",
    "quota_exceeded": "Quota Exceeded",
    "rate_limited": "Too many requests",
    "text_too_long": "Request size exceeds the limit",
    "body_too_large": "Request size exceeds the limit",
    "not_found": "Not found",
}
#: Targets that DeepL splits by region, which the model does not: what it calls each.
_REGIONAL = {
    "eng_Latn": (("EN-GB", "English (British)"), ("EN-US", "English (American)")),
    "por_Latn": (("PT-BR", "Portuguese (Brazilian)"), ("PT-PT", "Portuguese (European)")),
    "zho_Hans": (("ZH", "Chinese"), ("ZH-HANS", "Chinese (simplified)")),
}
#: What the model cannot do, and ignoring it would give a translation that was not asked for.
_UNSUPPORTED = ("glossary_ids", "style_id", "translation_memory_id", "custom_instructions", "ignore_tags")
_FORMAL = frozenset({"more", "less"})
_HTML_TAGS = frozenset({"html", "xml"})


class TranslateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v2/translate`. What tunes DeepL's own models (`context`, `split_sentences` …) is ignored."""

    text: str | list[str]
    target_lang: str
    source_lang: str | None = None
    tag_handling: Literal["html", "xml"] | None = None
    formality: Literal["default", "more", "less", "prefer_more", "prefer_less"] | None = None
    glossary_id: str | None = None


class TranslationItem(msgspec.Struct, frozen=True, kw_only=True):
    """One text's translation."""

    detected_source_language: str
    text: str
    billed_characters: int


class TranslateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One item a text, in order."""

    translations: tuple[TranslationItem, ...]


class LanguageItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`supports_formality` is told of targets only."""

    language: str
    name: str
    supports_formality: bool | None = None


def parse(
    values: Mapping[str, Any], languages: Languages, settings: Settings, *, client: str, request_id: str
) -> TranslationJob:
    """A request's job. Raises a typed error that names the field at fault."""
    for name in ("text", "target_lang"):
        if values.get(name) is None:
            raise MissingField(f"Parameter '{name}' not specified.", field=name)
    texts = as_texts(values["text"], "text")
    check_number(texts.items, min(MAX_TEXTS, settings.max_texts), "text")
    check_lengths(texts.items, settings.max_request_size, "text", is_list=texts.is_list)
    given = {name: value for name, value in values.items() if value not in (None, "", [])}
    for name in _UNSUPPORTED:
        if name in given:
            raise InvalidValue(f"{name} is not supported by this server; leave it out", field=name)
    request = schema.parse({**given, "text": values["text"]}, TranslateRequest, strict=False)
    if request.formality in _FORMAL:
        raise InvalidValue("formality is not supported for any target_lang; use prefer_more or leave it out")
    target = resolve(as_text(values["target_lang"], "target_lang"), {}, languages, "target_lang")
    source = request.source_lang and resolve(request.source_lang, {}, languages, "source_lang").code
    return TranslationJob(
        texts=texts.items,
        target_lang=target.code,
        source_lang=source or None,
        format="html" if request.tag_handling in _HTML_TAGS else "text",
        client=client,
        request_id=request_id,
        is_list=texts.is_list,
        guess_language=True,
    )


def render(result: TranslationResult, job: TranslationJob) -> TranslateResponse:
    """The answer to a whole request. A text without language, which comes back as it is, counts as the target's."""
    return TranslateResponse(
        translations=tuple(
            TranslationItem(
                detected_source_language=source_code(BY_CODE[item.source_lang or result.target_lang]),
                text=item.text,
                billed_characters=len(text),
            )
            for item, text in zip(result.translations, job.texts, strict=True)
        )
    )


def source_code(language: Language) -> str:
    """What DeepL calls a source language: `EN`, `PT`, `ZH`."""
    return "ZH" if language.code in ("zho_Hans", "zho_Hant") else language.bcp47.upper()


def render_languages(languages: Languages, kind: str) -> list[LanguageItem]:
    """The answer of `/v2/languages`. `kind`: source or target. Raises InvalidValue for another."""
    if kind not in ("source", "target"):
        raise InvalidValue("Value for 'type' not supported: use source or target", field="type")
    listed = _targets(languages) if kind == "target" else _sources(languages)
    formality = False if kind == "target" else None
    return [
        LanguageItem(language=code, name=name, supports_formality=formality)
        for code, name in sorted(listed, key=lambda item: item[1])
    ]


def render_usage(characters: int, limit: int | None) -> dict[str, int]:
    """The answer of `/v2/usage`: characters of this month."""
    return {"character_count": characters, "character_limit": UNLIMITED if limit is None else limit}


def render_error(error: NllbdError, request_id: str) -> ErrorAnswer:
    """`{"message": …, "detail": …}`; without `detail` where the message says it all."""
    status = _STATUS.get(error.code, 400 if error.status == 422 else error.status)
    message = _MESSAGES.get(error.code)
    if error.code in ("unknown_language", "unsupported_pair") and error.field in ("target_lang", "source_lang"):
        message = f"Value for '{error.field}' not supported."
    content = {"message": error.message} if message is None else {"message": message, "detail": error.message}
    return ErrorAnswer(status, content)


def _sources(languages: Languages) -> Iterator[tuple[str, str]]:
    if any(code in languages for code in ("zho_Hans", "zho_Hant")):
        yield "ZH", "Chinese"
    for language in languages:
        if source_code(language) != "ZH":
            yield source_code(language), language.name


def _targets(languages: Languages) -> Iterator[tuple[str, str]]:
    for language in languages:
        yield from _REGIONAL.get(language.code, ((language.bcp47.upper(), language.name),))
