"""The one table of settings. Flags, environment names, TOML keys, the sample file, the README's table and all
validation come from the rows below; nothing else declares a setting. Reads no file and no environment.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nllbd.config import kinds
from nllbd.config.kinds import Kind
from nllbd.errors import ConfigError
from nllbd.sched.sequence import EarlyStopping

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Row:
    """What is known of one setting beside its default.

    `bare` is the environment name that works without the NLLBD_ prefix; `live` = SIGHUP applies it; `default_text`
    and `example` are for the documents (the example where the default is "none" or depends on the machine). `pending`:
    the name is settled, but nothing acts on it yet; a start says so when it is set.
    """

    name: str
    group: str
    kind: Kind
    help: str
    default: Any
    secret: bool = False
    live: bool = False
    pending: bool = False
    bare: str | None = None
    default_text: str | None = None
    example: str | None = None

    @property
    def optional(self) -> bool:
        return self.default is None

    @property
    def described_default(self) -> str:
        """The default as the documents say it."""
        if self.default_text is not None:
            return self.default_text
        if self.default is None or self.default == ():
            return "none"
        return f"`{self.kind.write(self.default)}`"

    @property
    def purpose(self) -> str:
        """What the setting is for, as the documents say it."""
        return f"{self.help} (not in effect yet)" if self.pending else self.help

    @property
    def has_file_form(self) -> bool:
        """Whether `<name>_file` may name a file that holds the value: secrets, and URLs with a password."""
        return self.secret or self.kind.masked

    def check(self, value: Any, where: str) -> None:
        """Raise ConfigError when `value` is not of this setting's kind. A secret's value is never repeated."""
        if value is None and self.optional:
            return
        try:
            self.kind.check(value)
        except ValueError:
            raise self.refusal(value, where) from None

    def refusal(self, value: Any, where: str) -> ConfigError:
        got = "what is there" if self.has_file_form else repr(value)[:80]
        return ConfigError(f"{where}: {self.name}: expected {self.kind.expected}, got {got}", field=self.name)

    def shown(self, value: Any) -> Any:
        """`value` as it may be printed: secrets masked."""
        if value is None:
            return None
        if self.secret:
            return "***"
        return kinds.mask_url(value) if self.kind.masked else value


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where nllbd keeps what it makes: systemd's StateDirectory=, else XDG's state folder."""
    environ = os.environ if environ is None else environ
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".local" / "state"
    return Path(base) / "nllbd"


def _row(group: str, default: Any, kind: Kind, help: str, **facts: Any) -> Any:
    """A dataclass field that carries its row. Typed Any so that the annotation beside it rules."""
    made = dict(group=group, kind=kind, help=help, default=default, **facts)
    return dataclasses.field(default=default, metadata={"row": made})


_HOST = kinds.text("an address, a host name or unix:/path", r"unix:/.+|(?!unix:)[A-Za-z0-9.:\[\]_*-]+", "host")
_PORT = kinds.count(0, 65535)
_NAME = kinds.text()
_DEVICE = kinds.text("auto, cpu, cuda or cuda:N", r"auto|cpu|cuda(:[0-9]{1,3})?", "choice")
_RUNNER = kinds.text("model or fake", r"model|fake(:.*)?", "choice")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, each valid. `Settings()` has the defaults; `load_settings` fills it from flags, environment, file.

    Raises ConfigError on a value out of range and on values that contradict each other.
    """

    host: str = _row("Listening", "127.0.0.1", _HOST, "Address to listen on, or `unix:/path`")
    port: int = _row("Listening", 8000, _PORT, "Port to listen on; 0 = any free one")
    metrics_host: str = _row("Listening", "127.0.0.1", _HOST, "Address of `/metrics`")
    metrics_port: int = _row("Listening", 9000, _PORT, "Port of `/metrics`; 0 = off")

    model: str = _row(
        "Model",
        "demo",
        _NAME,
        "`demo` (bundled), the folder of an NLLB-200 checkpoint, or a hub id pulled before",
        bare="MODEL_NAME",
    )
    model_dir: Path | None = _row(
        "Model",
        None,
        kinds.path(),
        "Where pulled models live",
        default_text="`models` in the state folder",
        example='"/var/lib/nllbd/models"',
    )
    device: str = _row("Model", "auto", _DEVICE, "`auto`, `cpu`, `cuda` or `cuda:N`", bare="DEVICE")
    dtype: str = _row(
        "Model",
        "auto",
        kinds.choice("auto", "float32", "bfloat16", "float16", "int8"),
        "Arithmetic; auto = float16 on a GPU, int8 on a CPU",
    )
    runner: str = _row(
        "Model",
        "model",
        _RUNNER,
        "`model`, or `fake`: echoes its input's tokens without weights, for load tests; text comes back as "
        "SentencePiece normalizes it",
    )

    num_beams: int | None = _row(
        "Search",
        None,
        kinds.count(1, 64),
        "Beams of a request that names none",
        default_text="the model's, else 4",
        example="4",
    )
    length_penalty: float | None = _row(
        "Search",
        None,
        kinds.number(-10, 10),
        "Exponent of the length that divides a score",
        default_text="the model's, else 1.0",
        example="1.0",
    )
    early_stopping: EarlyStopping | None = _row(
        "Search",
        None,
        kinds.flag_or("never"),
        "When a beam search ends",
        default_text="the model's, else true",
        example="true",
    )
    max_length: int | None = _row(
        "Search",
        None,
        kinds.count(3, 65536),
        "Most decoder tokens of a segment, `</s>` and the language code included",
        default_text="the model's, else 512",
        example="512",
    )
    max_num_beams: int = _row("Search", 8, kinds.count(1, 64), "Most beams that a request may ask for")

    num_threads: int = _row("Engine", 0, kinds.count(0, 4096), "Threads of the engine; 0 = all cores")
    max_num_lanes: int = _row("Engine", 0, kinds.count(), "Most hypotheses decoded at once; 0 = from the device")
    max_encode_tokens: int = _row("Engine", 0, kinds.count(), "Most source tokens encoded a step; 0 = from the device")
    kv_cache_bytes: int = _row("Engine", 0, kinds.byte_count(), "Memory of the KV cache; 0 = from the device")
    max_waiting_segments: int = _row("Engine", 20_000, kinds.count(1), "Most segments that wait; a cap on memory only")
    max_waiting_tokens: int = _row("Engine", 2_000_000, kinds.count(1), "Most tokens that wait; a cap on memory only")

    request_timeout_s: float = _row(
        "Limits", 60.0, kinds.seconds(0.001), "Default and cap of a request's `timeout_s`", live=True
    )
    drain_timeout_s: float = _row(
        "Limits", 30.0, kinds.seconds(), "How long a stop waits for requests in flight", live=True
    )
    max_request_size: int = _row(
        "Limits", 5000, kinds.count(1), "Most code points of one text", live=True, bare="MAX_REQUEST_SIZE"
    )
    max_texts: int = _row("Limits", 128, kinds.count(1), "Most texts of one request", live=True)
    max_body_bytes: int = _row("Limits", 1 << 20, kinds.byte_count(1), "Largest request body", live=True)

    api_key: str | None = _row(
        "Access",
        None,
        _NAME,
        "The key that clients must send; its scope is `translate`",
        secret=True,
        live=True,
        bare="API_KEY",
        example='"…"',
    )
    jwt_secret: str | None = _row(
        "Access",
        None,
        _NAME,
        "Secret that signs and checks JWTs",
        secret=True,
        live=True,
        bare="JWT_SECRET",
        example='"…"',
    )
    jwt_issuer: str | None = _row(
        "Access", None, _NAME, "Issuer a JWT must name", live=True, example='"https://id.example"'
    )
    jwt_audience: str | None = _row("Access", None, _NAME, "Audience a JWT must name", live=True, example='"nllbd"')
    jwt_jwks_file: Path | None = _row(
        "Access",
        None,
        kinds.path(),
        "File of public keys (JWKS) that check JWTs signed with RS256",
        live=True,
        example='"/etc/nllbd/jwks.json"',
    )
    cors_origins: tuple[str, ...] = _row(
        "Access",
        (),
        kinds.many("origins such as https://example.com, or *", kinds.origin),
        "Web origins that may call from a browser",
        live=True,
        bare="CORS_ORIGINS",
    )
    trusted_proxies: tuple[str, ...] = _row(
        "Access",
        (),
        kinds.many("IP addresses or networks", kinds.network),
        "Peers whose forwarded headers count; a unix-socket peer is one",
        live=True,
    )
    allow_anonymous: bool = _row(
        "Access", False, kinds.flag(), "Serve requests without credentials, beyond loopback too"
    )

    rate_limit_per_minute: int = _row(
        "Rate limits",
        0,
        kinds.count(),
        "Requests a minute per key or client address; 0 = off",
        live=True,
        bare="RATE_LIMIT_PER_MINUTE",
    )
    rate_limit_burst: int = _row("Rate limits", 20, kinds.count(1), "Requests that may come at once", live=True)
    rate_limit_hosts: int = _row(
        "Rate limits", 1, kinds.count(1), "Hosts that share the limit when Redis is away", live=True
    )
    rate_limit_redis_url: str | None = _row(
        "Rate limits",
        None,
        kinds.url("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
        "Redis that holds the rate limits' buckets: one that does not evict",
        default_text="`redis_url`",
        example='"redis://localhost:6380/0"',
    )

    redis_url: str | None = _row(
        "Cache and store",
        None,
        kinds.url("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
        "Shared cache and rate limits: a server, or `redis+sentinel://ONE,TWO/MASTER/0`",
        bare="REDIS_URL",
        example='"redis://localhost:6379/0"',
    )
    cache_ttl_s: float = _row(
        "Cache and store", 7200.0, kinds.seconds(), "How long a translation is kept; 0 = not at all", live=True
    )
    cache_max_items: int = _row(
        "Cache and store",
        10_000,
        kinds.count(),
        "Most translations kept in the process, 4 KiB each on average; 0 = none",
        live=True,
    )
    cache_scope: str | None = _row(
        "Cache and store",
        None,
        kinds.choice("key", "shared"),
        "Who sees whose cached translations",
        default_text="`key` for stored keys and JWTs, else `shared`",
        example='"shared"',
        live=True,
    )
    cache_secret: str | None = _row(
        "Cache and store",
        None,
        _NAME,
        "Secret under which Redis holds texts; hosts that share a cache share it",
        secret=True,
        default_text="made in the state folder",
        example='"…"',
    )
    database_url: str | None = _row(
        "Cache and store",
        None,
        kinds.url("sqlite+aiosqlite", "postgresql+asyncpg"),
        "Keys, usage and audit; of several hosts (`//user@a,b/db`) the one that takes writes",
        default_text="SQLite in the state folder",
        example='"postgresql+asyncpg://nllbd@localhost/nllbd"',
    )
    audit_retention_days: int = _row(
        "Cache and store", 0, kinds.count(0, 36500), "How long audit events are kept; 0 = for ever"
    )
    usage_retention_days: int = _row(
        "Cache and store", 0, kinds.count(0, 36500), "How long usage by day is kept; 0 = for ever"
    )

    enable_swagger: bool | None = _row(
        "Pages",
        None,
        kinds.flag(),
        "`/openapi.json` and the API browser at `/docs`",
        bare="ENABLE_SWAGGER",
        default_text="true on loopback, else false",
        example="false",
    )
    enable_web: bool | None = _row(
        "Pages", None, kinds.flag(), "The page at `/`", default_text="true on loopback, else false", example="false"
    )
    detect_threshold: float = _row(
        "Text", 0.5, kinds.number(0, 1), "Confidence below which a detected language is *unknown*"
    )
    detect_model: Path | None = _row(
        "Text",
        None,
        kinds.path(),
        "fastText model that detects languages (lid.176, lid218e …) in place of the built-in detectors",
        example='"/var/lib/nllbd/lid218e.bin"',
    )

    log_level: str = _row(
        "Logging",
        "INFO",
        kinds.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", fold=str.upper),
        "Least level that is logged",
        live=True,
        bare="LOG_LEVEL",
    )
    log_format: str = _row(
        "Logging", "auto", kinds.choice("auto", "json", "console"), "auto = console on a terminal, else json"
    )
    sentry_dsn: str | None = _row(
        "Logging",
        None,
        kinds.url("http", "https"),
        "Where unexpected errors are reported: type and place, never a text",
        bare="SENTRY_DSN",
        example='"https://key@sentry.example/1"',
    )
    otlp_endpoint: str | None = _row(
        "Logging",
        None,
        kinds.url("http", "https"),
        "Where traces are sent (OTLP over HTTP); needs the extra `nllbd[otel]`",
        example='"http://localhost:4318"',
    )

    origins: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for row in ROWS:
            row.check(getattr(self, row.name), self.origin(row.name))
        if self.num_beams is not None and self.num_beams > self.max_num_beams:
            raise ConfigError(
                f"num_beams is {self.num_beams} but max_num_beams is {self.max_num_beams}: "
                "lower the first or raise the second",
                field="num_beams",
            )
        if self.num_beams is not None and 0 < self.max_num_lanes < self.num_beams:
            raise ConfigError(
                f"num_beams is {self.num_beams} but max_num_lanes is {self.max_num_lanes}, and each beam takes a lane: "
                "lower the first or raise the second",
                field="num_beams",
            )
        for name in ("enable_swagger", "enable_web"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.listens_on_loopback)
        if self.model_dir is None:
            object.__setattr__(self, "model_dir", state_folder() / "models")

    def __repr__(self) -> str:
        changed = (f"{row.name}={row.shown(getattr(self, row.name))!r}" for row in ROWS if self._differs(row))
        return f"Settings({', '.join(changed)})"

    def _differs(self, row: Row) -> bool:
        return bool(getattr(self, row.name) != row.default)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether `host` alone keeps strangers out; an inherited socket has to be looked at itself."""
        return self.host.startswith("unix:") or self.host in LOOPBACK_HOSTS

    def origin(self, name: str) -> str:
        """Where a setting's value came from: `flag --port`, `environment NLLBD_PORT`, a file, or `default`."""
        return self.origins.get(name, "default")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal for equal settings. Of a secret it tells only whether there is one: it must not help in guessing it."""
        shown = "\n".join(f"{row.name}={row.shown(getattr(self, row.name))!r}" for row in ROWS)
        return hashlib.sha256(shown.encode()).hexdigest()[:16]

    def reloaded(self, fresh: Settings) -> tuple[Settings, tuple[str, ...]]:
        """This with the live settings of `fresh`, and the names of others that differ and need a restart."""
        live = {row.name: getattr(fresh, row.name) for row in ROWS if row.live}
        cold = tuple(row.name for row in ROWS if not row.live and getattr(self, row.name) != getattr(fresh, row.name))
        return dataclasses.replace(self, **live, origins=fresh.origins, notes=fresh.notes), cold


def _rows() -> Iterator[Row]:
    for field in dataclasses.fields(Settings):
        if "row" in field.metadata:
            yield Row(name=field.name, **cast("dict[str, Any]", field.metadata["row"]))


ROWS: tuple[Row, ...] = tuple(_rows())
ROWS_BY_NAME: Mapping[str, Row] = {row.name: row for row in ROWS}
