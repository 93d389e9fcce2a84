"""The native API's requests and answers, declared once: parsing, error messages and `/openapi.json` come from here."""

from __future__ import annotations

import difflib
import re
import typing
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from nllbd.errors import InvalidType, InvalidValue, MissingField, NllbdError

_NAMES_SHOWN = 64
_Priority = Literal["interactive", "bulk"]
_Format = Literal["text", "html"]
HealthStatus = Literal["ok", "loading", "draining", "failed"]
StoreStatus = Literal["ok", "stale", "unreadable"]


class TranslateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /translate`. What is null or absent takes its default."""

    text: Annotated[str | list[str], Meta(description="One text, or several; line breaks and spaces are kept.")]
    target_lang: Annotated[str, Meta(description="FLORES, BCP-47 or ISO 639 code, or English name.")]
    source_lang: Annotated[
        str | None, Meta(description="Likewise, or `auto` (the default): detected text by text.")
    ] = None
    num_beams: Annotated[int, Meta(ge=1, description="Width of the beam search; 1 = greedy.")] | None = None
    max_length: Annotated[int, Meta(ge=3, description="Most target tokens of a sentence.")] | None = None
    length_penalty: Annotated[float, Meta(description="Exponent of the length that divides a score.")] | None = None
    early_stopping: bool | Literal["never"] | None = None
    alternatives: Annotated[int, Meta(ge=0, description="How many translations to list; at most num_beams.")] | None = (
        None
    )
    format: _Format | None = None
    priority: _Priority | None = None
    timeout_s: Annotated[float, Meta(gt=0, description="Seconds to wait; the server's own limit caps it.")] | None = (
        None
    )
    stream: Annotated[bool, Meta(description="Answer with Server-Sent Events, sentence by sentence.")] | None = None


class TranslationItem(msgspec.Struct, frozen=True, kw_only=True):
    """One text's translation."""

    text: str
    source_lang: Annotated[
        str | None,
        Meta(description="FLORES code; null where `auto` found nothing to translate and gave the text back as it was."),
    ]
    detected_confidence: float | None
    alternatives: tuple[str, ...]
    warnings: tuple[str, ...]


class UsageItem(msgspec.Struct, frozen=True, kw_only=True):
    """What the request cost: code points and sentences."""

    characters: int
    segments: int
    cached_segments: int


class TranslateResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`translated_text` is there when `text` was a string."""

    translated_text: str | None = None
    translations: tuple[TranslationItem, ...]
    target_lang: str
    model: str
    usage: UsageItem
    duration_ms: float


class SegmentItem(msgspec.Struct, frozen=True, kw_only=True):
    """One `segment` event of a streamed answer. The texts of one `text_index` concatenate to its translation."""

    text_index: int
    segment_index: int
    source_span: tuple[int, int]
    text: str
    warnings: tuple[str, ...]


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The `done` event of a streamed answer."""

    target_lang: str
    model: str
    usage: UsageItem
    duration_ms: float


class DetectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /detect`."""

    text: str | list[str]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A language that a text may be in."""

    language: str
    confidence: float


class DetectionItem(msgspec.Struct, frozen=True, kw_only=True):
    """`language` is null when no candidate is likely enough: *unknown*."""

    language: str | None
    confidence: float
    candidates: tuple[Candidate, ...]


class DetectResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One detection a text."""

    detections: tuple[DetectionItem, ...]


class LanguageItem(msgspec.Struct, frozen=True, kw_only=True):
    """LibreTranslate's form plus the model's own code."""

    code: str
    name: str
    targets: tuple[str, ...]
    flores: str


class HealthResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`ok` comes with 200; `loading`, `draining` and `failed` with 503.

    `store` tells of the stored keys: read a moment ago; as of a while ago, and in use; not readable.
    """

    status: HealthStatus
    engine: str
    model: str
    version: str
    uptime_s: float
    message: str | None = None
    store: StoreStatus | None = None


class VersionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What runs here. `fingerprint` identifies the checkpoint; device and dtype are null until the engine says.

    `max_request_size` is the most code points that one text may have.
    """

    name: str
    version: str
    model: str
    fingerprint: str
    device: str | None
    dtype: str | None
    max_request_size: int


S = TypeVar("S", bound=msgspec.Struct)

_TYPE_NAMES = {
    "str": "a string",
    "array": "an array",
    "object": "an object",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_OUT_OF_RANGE = re.compile(r"Expected `([^`]*)` (>=|>|<=|<) (\S+)")


def parse(payload: dict[str, Any], schema: type[S], *, strict: bool = True) -> S:
    """A request as its schema. Not `strict`: numbers and booleans may come as strings, as in forms.

    Raises MissingField, InvalidType or InvalidValue, naming the field and what would have been right.
    """
    try:
        return msgspec.convert(payload, schema, strict=strict)
    except msgspec.ValidationError as error:
        raise _explain(str(error), schema) from None
    except OverflowError:
        raise InvalidValue("a number in the request is too large") from None


def _explain(message: str, schema: type[msgspec.Struct]) -> NllbdError:
    """msgspec's message as one of our errors."""
    where = _AT.search(message)
    field = where.group(1) if where else None
    if missing := _MISSING.match(message):
        return MissingField(f"{missing.group(1)} is missing", field=missing.group(1))
    if unknown := _UNKNOWN.match(message):
        return _unknown_field(unknown.group(1), schema)
    if wrong := _WRONG_TYPE.match(message):
        expected, got = _in_words(wrong.group(1)), _in_words(wrong.group(2))
        return InvalidType(f"{field}: expected {expected}, got {got}", field=field)
    if limit := _OUT_OF_RANGE.match(message):
        comparison = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}[limit.group(2)]
        return InvalidValue(f"{field}: must be {comparison} {limit.group(3)}", field=field)
    choices = _choices(schema, field) if field else ()
    if choices:
        return InvalidValue(f"{field}: must be one of {', '.join(choices)}", field=field)
    return InvalidValue("the request does not have the expected form", field=field)


def _unknown_field(name: str, schema: type[msgspec.Struct]) -> InvalidValue:
    known = schema.__struct_fields__
    shown = name if len(name) <= _NAMES_SHOWN else name[:_NAMES_SHOWN] + "…"
    nearest = difflib.get_close_matches(name[:_NAMES_SHOWN], known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    return InvalidValue(f"there is no field {shown!r}; {hint}", field=shown)


def _in_words(types: str) -> str:
    """`str | array` → "a string or an array"; null among several only means that the field may be left out."""
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    return " or ".join(_TYPE_NAMES.get(name, name) for name in names)


def _choices(schema: type[msgspec.Struct], field: str) -> tuple[str, ...]:
    hint = typing.get_type_hints(schema).get(field)
    found: list[str] = []
    for option in typing.get_args(hint):
        if option is bool:
            found += ["true", "false"]
        elif typing.get_origin(option) is Literal:
            found += [f'"{value}"' for value in typing.get_args(option)]
    return tuple(found)
