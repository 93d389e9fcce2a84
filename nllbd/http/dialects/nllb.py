"""Two servers for NLLB that people have: nllb-serve and nllb-api. Requests become jobs, results their answers.

nllb-serve has no errors of its own in JSON, so it gets the native ones; nllb-api's are `{"status_code", "detail"}`.
Knows no HTTP library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nllbd.config import Settings
from nllbd.errors import EmptyText, MissingField, NllbdError
from nllbd.http.dialects.common import AUTO, ErrorAnswer, as_text, as_texts, check_lengths, check_number
from nllbd.job import TranslationJob, TranslationResult
from nllbd.languages import Languages

_API_DEFAULTS = {"source": "eng_Latn", "target": "spa_Latn"}


class ServeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """nllb-serve: `/translate`."""

    source: str | list[str]
    src_lang: str
    tgt_lang: str


class ServeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`source` and `translation` are lists, also of a single text."""

    source: tuple[str, ...]
    translation: tuple[str, ...]
    src_lang: str
    tgt_lang: str
    time_taken: float
    time_units: str = "s"


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """nllb-api: `/api/v4/translator`."""

    text: str
    source: str = _API_DEFAULTS["source"]
    target: str = _API_DEFAULTS["target"]


class ApiResponse(msgspec.Struct, frozen=True, kw_only=True):
    result: str


def parse_serve(
    values: Mapping[str, Any], languages: Languages, settings: Settings, *, client: str, request_id: str
) -> TranslationJob:
    """A job of nllb-serve's request. Raises a typed error that names the field at fault."""
    for name in ("source", "src_lang", "tgt_lang"):
        if values.get(name) in (None, ""):
            raise MissingField(f"{name} is missing", field=name)
    texts = as_texts(values["source"], "source")
    check_number(texts.items, settings.max_texts, "source")
    check_lengths(texts.items, settings.max_request_size, "source", is_list=texts.is_list)
    source = as_text(values["src_lang"], "src_lang")
    return TranslationJob(
        texts=texts.items,
        target_lang=languages.resolve(as_text(values["tgt_lang"], "tgt_lang"), "tgt_lang").code,
        source_lang=None if source.strip().lower() == AUTO else languages.resolve(source, "src_lang").code,
        client=client,
        request_id=request_id,
        field="source",
        is_list=texts.is_list,
    )


def render_serve(result: TranslationResult, job: TranslationJob, values: Mapping[str, Any]) -> ServeResponse:
    """nllb-serve's answer; the languages as the request named them."""
    return ServeResponse(
        source=job.texts,
        translation=tuple(item.text for item in result.translations),
        src_lang=values["src_lang"],
        tgt_lang=values["tgt_lang"],
        time_taken=round(result.duration_s, 3),
    )


def parse_api(
    values: Mapping[str, Any], languages: Languages, settings: Settings, *, client: str, request_id: str
) -> TranslationJob:
    """A job of nllb-api's request. Raises a typed error that names the field at fault."""
    if values.get("text") is None:
        raise MissingField("text is missing", field="text")
    text = as_text(values["text"], "text")
    if not text:
        raise EmptyText("text is empty", field="text")
    check_lengths((text,), settings.max_request_size, "text", is_list=False)
    source, target = (as_text(values.get(name, default), name) for name, default in _API_DEFAULTS.items())
    return TranslationJob(
        texts=(text,),
        target_lang=languages.resolve(target, "target").code,
        source_lang=languages.resolve(source, "source").code,
        client=client,
        request_id=request_id,
    )


def render_api(result: TranslationResult) -> ApiResponse:
    """nllb-api's answer."""
    return ApiResponse(result=result.translations[0].text)


def render_api_error(error: NllbdError, request_id: str) -> ErrorAnswer:
    """nllb-api's error object."""
    return ErrorAnswer(error.status, {"status_code": error.status, "detail": error.message})
