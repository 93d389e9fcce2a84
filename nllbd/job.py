"""What goes into the translator and what comes out: frozen values that every front end (HTTP dialects, CLI) shares.

Also the one place where search settings are decided: request > setting > the model's generation_config > built in.
Knows no HTTP and no engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from nllbd.errors import ConfigError, InvalidValue
from nllbd.sched.sequence import EarlyStopping, Priority, SearchParams

if TYPE_CHECKING:
    from nllbd.checkpoint import Checkpoint
    from nllbd.config import Settings
    from nllbd.text.glossary import Glossary

DEFAULTS = SearchParams(num_beams=4, length_penalty=1.0, early_stopping=True, max_length=512)
MIN_MAX_LENGTH = 3  # the initial `</s>`, the language code, and one token of translation
MAX_LENGTH_PENALTY = 10.0

_COUNTED = frozenset({"characters", "segments", "cached_segments", "source_tokens", "target_tokens"})

TextFormat = Literal["text", "html"]
T = TypeVar("T")


class TranslationJob(msgspec.Struct, frozen=True):
    """One request for translation, in whichever dialect it came.

    Languages are names that `Languages.resolve` knows (FLORES, BCP-47, ISO, English); `source_lang=None` means detect,
    text by text. None in a search setting means: not asked for. `client` and `request_id` are the two levels of
    fairness in the scheduler; `tenant` is who may see its cached translations, "" = everybody. Where detection is not
    sure enough: `fallback_lang` if there is one, else the likeliest language if `guess_language`, else an error.
    `glossary` has terms whose translation is given. `field` is what the request calls its texts: errors then name
    `text[3]`, or `text` alone when the request gave one string (`is_list` false).
    """

    texts: tuple[str, ...]
    target_lang: str
    source_lang: str | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    max_length: int | None = None
    num_alternatives: int = 0
    format: TextFormat = "text"
    priority: Priority = Priority.INTERACTIVE
    timeout_s: float | None = None
    client: str = ""
    tenant: str = ""
    request_id: str = ""
    field: str = "text"
    is_list: bool = False
    guess_language: bool = False
    fallback_lang: str | None = None
    glossary: Glossary | None = None

    @property
    def has_search_wishes(self) -> bool:
        """Whether the request says anything of how to search."""
        wishes = (self.num_beams, self.length_penalty, self.early_stopping, self.max_length)
        return self.num_alternatives != 0 or wishes != (None, None, None, None)

    def text_field(self, index: int) -> str:
        """The name of text `index` in the request's own words."""
        return f"{self.field}[{index}]" if self.is_list else self.field


class TextTranslation(msgspec.Struct, frozen=True):
    """The translation of one text. `detected_confidence` is None unless the source language was detected.

    `source_lang` is None for a text that was returned as it is before any language was looked for.
    """

    text: str
    source_lang: str | None
    detected_confidence: float | None = None
    alternatives: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """What a job cost. `cached_segments` of its `segments` came from the cache; tokens are those of the others,
    language code and `</s>` included; times are the slowest segment's, in seconds. `peak_lanes`: the most lanes of the
    batch, all requests' together, while segments of this one were in it.
    """

    characters: int = 0
    segments: int = 0
    cached_segments: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    queue_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    beams: int = 0
    peak_lanes: int = 0


class TranslationResult(msgspec.Struct, frozen=True):
    """The answer to one job: `translations` in the order of its texts."""

    translations: tuple[TextTranslation, ...]
    target_lang: str
    usage: Usage = Usage()
    duration_s: float = 0.0


class SegmentEvent(msgspec.Struct, frozen=True):
    """A segment that is final, and so are all before it in its text.

    `source_span` is the part of the text it translates, as code point offsets [start, end). The `text` of one
    `text_index`'s events concatenate to its whole translation, separators included.
    """

    text_index: int
    segment_index: int
    source_span: tuple[int, int]
    text: str
    warnings: tuple[str, ...] = ()


def sum_usage(usages: Iterable[Usage]) -> Usage:
    """What jobs cost together, at least one: counts add up, of times and widths the greatest counts."""
    parts = tuple(usages)
    together = {name: sum if name in _COUNTED else max for name in Usage.__struct_fields__}
    return Usage(**{name: combine(getattr(part, name) for part in parts) for name, combine in together.items()})


def search_params(job: TranslationJob, settings: Settings, checkpoint: Checkpoint) -> SearchParams:
    """The search settings of a job.

    Raises InvalidValue, naming the field, for what this model or this server cannot do.
    """
    default = default_params(settings, checkpoint)
    num_beams = _chosen(job.num_beams, default.num_beams)
    max_length = _chosen(job.max_length, default.max_length)
    length_penalty = _chosen(job.length_penalty, default.length_penalty)
    most = max_beams(settings)
    why = "max_num_beams" if most == settings.max_num_beams else "max_num_lanes"
    _check_range("num_beams", num_beams, 1, most, f"this server's {why}")
    _check_range("max_length", max_length, MIN_MAX_LENGTH, checkpoint.config.max_positions, "the model's positions")
    if not (math.isfinite(length_penalty) and abs(length_penalty) <= MAX_LENGTH_PENALTY):
        raise InvalidValue(
            f"length_penalty must be from {-MAX_LENGTH_PENALTY:g} to {MAX_LENGTH_PENALTY:g}", field="length_penalty"
        )
    _check_range("alternatives", job.num_alternatives, 0, num_beams, "num_beams")
    return SearchParams(
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=_chosen(job.early_stopping, default.early_stopping),
        max_length=max_length,
        num_hypotheses=max(1, job.num_alternatives),
    )


def default_params(settings: Settings, checkpoint: Checkpoint) -> SearchParams:
    """The search settings of a request that names none. A model's own wishes yield to this server's caps and to its
    positions; the server's own `max_length` was held against them by `check_settings`.
    """
    model = checkpoint.generation
    num_beams = _chosen(settings.num_beams, min(_wished_beams(checkpoint), max_beams(settings)))
    max_length = _chosen(settings.max_length, _chosen(model.max_length, DEFAULTS.max_length))
    return SearchParams(
        num_beams=num_beams,
        length_penalty=_chosen(settings.length_penalty, _chosen(model.length_penalty, DEFAULTS.length_penalty)),
        early_stopping=_chosen(settings.early_stopping, _chosen(model.early_stopping, DEFAULTS.early_stopping)),
        max_length=min(max_length, checkpoint.config.max_positions),
    )


def max_beams(settings: Settings) -> int:
    """The most beams that a request may have: each takes a lane of the engine."""
    return min(settings.max_num_beams, settings.max_num_lanes or settings.max_num_beams)


def cap_warning(settings: Settings, checkpoint: Checkpoint) -> str | None:
    """What an operator should know of the default beams: that they are fewer than the model's own."""
    wished = _wished_beams(checkpoint)
    most = max_beams(settings)
    if settings.num_beams is not None or wished <= most:
        return None
    return f"requests get {most} beams and not the model's {wished}: max_num_beams or max_num_lanes allows no more"


def _wished_beams(checkpoint: Checkpoint) -> int:
    return _chosen(checkpoint.generation.num_beams, DEFAULTS.num_beams)


def check_settings(settings: Settings, checkpoint: Checkpoint) -> None:
    """Raise ConfigError for a setting that this model cannot fulfil."""
    most = checkpoint.config.max_positions
    if settings.max_length is not None and settings.max_length > most:
        raise ConfigError(
            f"{settings.origin('max_length')}: max_length is {settings.max_length}, but the model {checkpoint.name} "
            f"has {most} positions: give at most {most}",
            field="max_length",
        )


def max_segment_tokens(settings: Settings, checkpoint: Checkpoint) -> int:
    """The longest segment, in source tokens, that is sent to the model in one piece.

    A translation may well be half again as long as its source, and must not be cut at the default `max_length`; so
    what is longer is split further. A request's own `max_length` does not count here: who asks for 20 tokens gets 20
    tokens (and the warning `truncated`), as with any other NLLB implementation.
    """
    default = default_params(settings, checkpoint).max_length
    return max(8, min(checkpoint.config.max_positions - 2, default * 2 // 3))


def timeout_s(job: TranslationJob, settings: Settings) -> float:
    """Seconds the job may take. Raises InvalidValue unless what it asks for is a positive number."""
    if job.timeout_s is None:
        return settings.request_timeout_s
    if not (math.isfinite(job.timeout_s) and job.timeout_s > 0):
        raise InvalidValue("timeout_s must be a number of seconds above 0", field="timeout_s")
    return min(job.timeout_s, settings.request_timeout_s)


def _chosen(asked: T | None, otherwise: T) -> T:
    return otherwise if asked is None else asked


def _check_range(name: str, value: int, low: int, high: int, why: str) -> None:
    if not low <= value <= high:
        raise InvalidValue(f"{name} must be from {low} to {high} ({why}); got {_shown(value)}", field=name)


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10**12 else "a number far beyond that"
