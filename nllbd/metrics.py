"""Every metric, declared once in `TABLE`: name, kind, labels, buckets, help. Knows nothing of HTTP.

A `Metrics` owns its own registry (nothing global), so two daemons in one process, or two tests, never share a figure.
Engine figures are not pushed: they are read from `EngineClient.stats` when somebody scrapes.

We do not use `aiohttp-prometheus-exporter`: its metrics carry the client's address as label `remote`, so every new
address makes new time series for ever, and its `path_template` needs a matched route. Labels here are bounded: route
templates, HTTP methods and statuses, our own error codes and guard kinds. Never a client, a key, a text or a language
that a client merely named.
"""

from __future__ import annotations

import enum
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from nllbd import __version__
from nllbd.bridge.protocol import STEP_BOUNDS_S, EngineClient, EngineState, EngineStats
from nllbd.gpu import read_gpu_memory
from nllbd.tally import Histogram, Tally

_SECONDS: tuple[float, ...] = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    7.5,
)
_SECONDS += (10.0, 15.0, 20.0, 30.0, 45.0, 60.0)  # a refusal takes a millisecond, a document what its deadline allows
_SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TINY_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
_SEGMENTS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048)


class Kind(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, eq=False)  # a row is looked up by itself, several times a request
class MetricSpec:
    """One row of the table. `read` is set where the value is taken at scrape time, of an engine and its figures then.

    `known`: values of a counter's only label that are shown from the start, at 0. A rate needs a point before the
    first event; without it the first failure of a daemon's life would not be seen.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    read: Callable[[EngineClient, EngineStats], float] | None = None
    known: tuple[str, ...] = ()


def _kv_usage(_engine: EngineClient, stats: EngineStats) -> float:
    return stats.used_blocks / stats.num_blocks if stats.num_blocks else 0.0


HTTP_REQUESTS = MetricSpec(
    "nllbd_http_requests_total", Kind.COUNTER, "HTTP requests answered.", ("method", "route", "status")
)
REQUEST_DURATION = MetricSpec(
    "nllbd_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a request's headers to its response, by route template.",
    ("route",),
    _SECONDS,
)
IN_FLIGHT = MetricSpec("nllbd_requests_in_flight", Kind.GAUGE, "HTTP requests being served now.")
ERRORS = MetricSpec(
    "nllbd_errors_total",
    Kind.COUNTER,
    "Requests that ended in an error, by its code.",
    ("code",),
    known=("internal", "deadline_exceeded", "overloaded", "not_ready", "draining"),
)
REJECTED = MetricSpec(
    "nllbd_rejected_total",
    Kind.COUNTER,
    "Requests refused before any work: overloaded, not_ready, draining, too large, unauthorized.",
    ("reason",),
    known=("overloaded", "rate_limited", "quota_exceeded", "unauthorized"),
)
CANCELLED = MetricSpec("nllbd_cancelled_total", Kind.COUNTER, "Requests whose client went away before the answer.")
SEGMENTS = MetricSpec(
    "nllbd_segments_total",
    Kind.COUNTER,
    "Segments by how they were served: translated, cached, repeated within their request, or passed through.",
    ("result",),
)
SEQUENCES = MetricSpec(
    "nllbd_sequences_total",
    Kind.COUNTER,
    "Sequences that requests needed: submitted to the engine, or joined to an identical one in flight.",
    ("result",),
)
CHARACTERS = MetricSpec("nllbd_characters_total", Kind.COUNTER, "Code points of text accepted for translation.")
REQUEST_SEGMENTS = MetricSpec(
    "nllbd_request_segments", Kind.HISTOGRAM, "Segments a translation request was split into.", (), _SEGMENTS
)
QUEUE_TIME = MetricSpec(
    "nllbd_queue_time_seconds",
    Kind.HISTOGRAM,
    "Time a sequence waited in the engine before its first step.",
    (),
    _SHORT_SECONDS,
)
ENCODE_TIME = MetricSpec(
    "nllbd_encode_time_seconds", Kind.HISTOGRAM, "Time a sequence spent in encode.", (), _SHORT_SECONDS
)
DECODE_TIME = MetricSpec(
    "nllbd_decode_time_seconds", Kind.HISTOGRAM, "Time a sequence spent in decode.", (), _SHORT_SECONDS
)
GUARD = MetricSpec("nllbd_guard_total", Kind.COUNTER, "What the guards found in translated segments.", ("kind",))
RETRIES = MetricSpec("nllbd_guard_retries_total", Kind.COUNTER, "Segments translated again because a guard said so.")
DETECTIONS = MetricSpec("nllbd_detections_total", Kind.COUNTER, "Language detections: known or unknown.", ("result",))
ADMITTED_TOKENS = MetricSpec(
    "nllbd_admitted_tokens", Kind.GAUGE, "Source tokens of accepted requests that are not finished yet."
)
AUTH_FAILURES = MetricSpec(
    "nllbd_authentication_failures_total", Kind.COUNTER, "Requests whose credentials were not good."
)
CACHE_REQUESTS = MetricSpec(
    "nllbd_cache_requests_total",
    Kind.COUNTER,
    "Segments looked up in the cache: found in memory, found in redis, or a miss.",
    ("result",),
    known=("memory", "redis", "miss"),
)
CACHE_LOOKUP_TIME = MetricSpec(
    "nllbd_cache_lookup_seconds", Kind.HISTOGRAM, "Time a request's look into the cache took.", (), _TINY_SECONDS
)
CACHE_ITEMS = MetricSpec("nllbd_cache_items", Kind.GAUGE, "Translations kept in the process.")
CACHE_BYTES = MetricSpec("nllbd_cache_bytes", Kind.GAUGE, "Memory of the translations kept in the process, about.")
CACHE_WRITES = MetricSpec(
    "nllbd_cache_writes_total",
    Kind.COUNTER,
    "Translations for Redis: written, refused by it, or dropped because it is away or too slow.",
    ("result",),
)
CACHE_DAMAGED = MetricSpec(
    "nllbd_cache_damaged_total", Kind.COUNTER, "Values in Redis that were not ours or not whole, and not used."
)
REDIS_UP = MetricSpec("nllbd_redis_up", Kind.GAUGE, "1 while Redis is used, 0 while the circuit is open.", ("link",))
REDIS_ERRORS = MetricSpec(
    "nllbd_redis_errors_total", Kind.COUNTER, "Round trips to Redis that failed: timeout, connection.", ("link", "kind")
)
REDIS_DURATION = MetricSpec(
    "nllbd_redis_duration_seconds", Kind.HISTOGRAM, "Round trips to Redis that worked.", ("link",), _TINY_SECONDS
)
TRANSLATION_REQUESTS = MetricSpec(
    "translation_requests_total", Kind.COUNTER, "Translation requests that were admitted (the deployment guide's name)."
)
TRANSLATION_DURATION = MetricSpec(
    "translation_duration_seconds",
    Kind.HISTOGRAM,
    "Duration of successful translations (the deployment guide's name).",
    (),
    _SECONDS,
)
CPU_USAGE = MetricSpec(
    "system_cpu_usage_percent", Kind.GAUGE, "CPU in use on the whole machine since the last scrape, 0 to 100."
)
MEMORY_USAGE = MetricSpec("system_memory_usage_bytes", Kind.GAUGE, "Memory in use on the whole machine.")
MEMORY_TOTAL = MetricSpec("system_memory_total_bytes", Kind.GAUGE, "Memory that the whole machine has.")
GPU_MEMORY_USAGE = MetricSpec(
    "gpu_memory_usage_bytes", Kind.GAUGE, "Memory in use on all NVIDIA devices of the machine; 0 without one."
)
GPU_MEMORY_TOTAL = MetricSpec(
    "gpu_memory_total_bytes", Kind.GAUGE, "Memory that all NVIDIA devices of the machine have; 0 without one."
)
INFO = MetricSpec(
    "nllbd", Kind.INFO, "Versions, the model and its fingerprint, device and dtype, as labels of the constant 1."
)
CONFIG_INFO = MetricSpec(
    "nllbd_config",
    Kind.INFO,
    "A fingerprint of the settings in effect: equal on hosts that are set alike. No secret goes into it.",
)
CONFIG_RELOADS = MetricSpec(
    "nllbd_config_reloads_total",
    Kind.COUNTER,
    "Reloads of the settings (SIGHUP): ok or failed.",
    ("result",),
    known=("ok", "failed"),
)
MAX_WAITING_TOKENS = MetricSpec(
    "nllbd_max_waiting_tokens", Kind.GAUGE, "Source tokens that may wait: what nllbd_waiting_tokens is measured by."
)
MAX_WAITING_SEGMENTS = MetricSpec(
    "nllbd_max_waiting_segments", Kind.GAUGE, "Sequences that may wait: nllbd_num_sequences_waiting is measured by it."
)
STORE_UP = MetricSpec("nllbd_store_up", Kind.GAUGE, "1 while the database of keys and usage answers.")
STORED_KEYS = MetricSpec("nllbd_stored_keys", Kind.GAUGE, "Active stored keys.")
USAGE_WAITING = MetricSpec(
    "nllbd_usage_waiting_batches", Kind.GAUGE, "Batches of usage that wait for the database, in the journal."
)
USAGE_LOST = MetricSpec(
    "nllbd_usage_lost_characters",
    Kind.GAUGE,
    "Characters since the start that no account was charged: database and disk were both away, and memory was full.",
)
AUDIT_DROPPED = MetricSpec("nllbd_audit_dropped_events", Kind.GAUGE, "Audit events since the start that were dropped.")
LOG_DROPPED = MetricSpec(
    "nllbd_log_dropped_lines_total", Kind.COUNTER, "Log lines that nobody took while there was room for them."
)
ENGINE_STATE = MetricSpec(
    "nllbd_engine_state", Kind.GAUGE, "1 for the state the engine is in, 0 for the others.", ("state",)
)
TOKENS = MetricSpec(
    "nllbd_tokens_total", Kind.COUNTER, "Tokens the engine encoded (source) and decoded (target).", ("kind",)
)
STEP_DURATION = MetricSpec(
    "nllbd_step_duration_seconds",
    Kind.HISTOGRAM,
    "Time a step of the engine took, planning not included.",
    (),
    STEP_BOUNDS_S,
)


def _max_lanes(engine: EngineClient, _stats: EngineStats) -> float:
    info = engine.info
    return info.max_num_lanes if info else 0.0


_G, _C = Kind.GAUGE, Kind.COUNTER
ENGINE_FIGURES = (
    MetricSpec("nllbd_num_sequences_running", _G, "Sequences in the batch.", read=lambda _, stats: stats.num_running),
    MetricSpec("nllbd_num_sequences_waiting", _G, "Sequences in the queue.", read=lambda _, stats: stats.num_waiting),
    MetricSpec("nllbd_waiting_tokens", _G, "Source tokens in the queue.", read=lambda _, stats: stats.waiting_tokens),
    MetricSpec("nllbd_batch_lanes", _G, "Lanes decoded in the last step.", read=lambda _, stats: stats.num_lanes),
    MetricSpec("nllbd_max_num_lanes", _G, "Lanes a step can decode; 0 until the engine is up.", read=_max_lanes),
    MetricSpec("nllbd_kv_cache_usage_ratio", _G, "Share of the KV pool's blocks in use, 0 to 1.", read=_kv_usage),
    MetricSpec(
        "nllbd_tokens_per_second", _G, "Decoded tokens a second, recent.", read=lambda _, stats: stats.tokens_per_s
    ),
    MetricSpec(
        "nllbd_preemptions_total",
        _C,
        "Sequences whose KV was taken away for another.",
        read=lambda _, stats: stats.preemptions,
    ),
    MetricSpec(
        "nllbd_encode_seconds_total", _C, "Time the engine spent encoding.", read=lambda _, stats: stats.encode_s
    ),
    MetricSpec(
        "nllbd_decode_seconds_total", _C, "Time the engine spent decoding.", read=lambda _, stats: stats.decode_s
    ),
    MetricSpec("nllbd_engine_restarts_total", _C, "Engine restarts.", read=lambda engine, _: engine.num_restarts),
)

#: The metrics that code counts, sets or observes.
RECORDED = (
    HTTP_REQUESTS,
    REQUEST_DURATION,
    IN_FLIGHT,
    ERRORS,
    REJECTED,
    CANCELLED,
    SEGMENTS,
    SEQUENCES,
    CHARACTERS,
    REQUEST_SEGMENTS,
    QUEUE_TIME,
    ENCODE_TIME,
    DECODE_TIME,
    GUARD,
    RETRIES,
    DETECTIONS,
    ADMITTED_TOKENS,
    AUTH_FAILURES,
    CACHE_REQUESTS,
    CACHE_LOOKUP_TIME,
    CACHE_ITEMS,
    CACHE_BYTES,
    CACHE_WRITES,
    CACHE_DAMAGED,
    REDIS_UP,
    REDIS_ERRORS,
    REDIS_DURATION,
    TRANSLATION_REQUESTS,
    TRANSLATION_DURATION,
    CONFIG_RELOADS,
    MAX_WAITING_TOKENS,
    MAX_WAITING_SEGMENTS,
    STORE_UP,
    STORED_KEYS,
    USAGE_WAITING,
    USAGE_LOST,
    AUDIT_DROPPED,
)
#: Everything that `/metrics` shows (besides the process_* figures of prometheus-client).
TABLE = (
    *RECORDED,
    CPU_USAGE,
    MEMORY_USAGE,
    MEMORY_TOTAL,
    GPU_MEMORY_USAGE,
    GPU_MEMORY_TOTAL,
    INFO,
    CONFIG_INFO,
    LOG_DROPPED,
    ENGINE_STATE,
    TOKENS,
    STEP_DURATION,
    *ENGINE_FIGURES,
)


class Metrics:
    """One registry with every metric of `TABLE` in it."""

    def __init__(self, engine: EngineClient | None = None, model: str = "", fingerprint: str = "") -> None:
        self.registry = CollectorRegistry()
        self._tallies = {spec: _tally(spec) for spec in RECORDED if spec.kind is not Kind.HISTOGRAM}
        for spec in RECORDED:
            for value in spec.known:
                self.add(spec, 0, **{spec.labels[0]: value})
        self._histograms = {
            spec: Histogram(spec.name, spec.help, spec.labels, spec.buckets)
            for spec in RECORDED
            if spec.kind is Kind.HISTOGRAM
        }
        for collector in (*self._tallies.values(), *self._histograms.values()):
            self.registry.register(collector)
        self.registry.register(_SystemFigures())
        ProcessCollector(registry=self.registry)
        if engine is not None:
            self.watch_engine(engine, model, fingerprint)

    def watch_engine(self, engine: EngineClient, model: str, fingerprint: str = "") -> None:
        """Read the engine's figures at every scrape from now on. Call once. `fingerprint`: the model's."""
        self.registry.register(_EngineFigures(engine, model, fingerprint))

    def watch_settings(self, read_fingerprint: Callable[[], str]) -> None:
        """Show the settings' fingerprint at every scrape from now on. Call once."""
        self.registry.register(_ConfigFigures(read_fingerprint))

    def watch_log(self, count_dropped: Callable[[], int]) -> None:
        """Show how many log lines were dropped at every scrape from now on. Call once."""
        self.registry.register(_LogFigures(count_dropped))

    def add(self, spec: MetricSpec, amount: float = 1, **labels: str) -> None:
        """Count up a counter, or move a gauge. On the event loop only, like `set` and `observe`."""
        self._tallies[spec].add(amount, labels)

    def set(self, spec: MetricSpec, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._tallies[spec].set(value, labels)

    def observe(self, spec: MetricSpec, value: float, **labels: str) -> None:
        """Put one value into a histogram."""
        self._histograms[spec].observe(value, labels)

    def value(self, spec: MetricSpec, **labels: str) -> float:
        """Current value of a counter or gauge (0 if never touched); of a histogram, its number of observations."""
        return (self._histograms if spec.kind is Kind.HISTOGRAM else self._tallies)[spec].value(labels)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape's body and content type. Reads /proc: call it off the event loop."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


def _tally(spec: MetricSpec) -> Tally:
    return Tally(spec.name, spec.help, spec.labels, is_counter=spec.kind is Kind.COUNTER)


class _SystemFigures(Collector):
    """The guide's machine-wide figures, read at scrape time."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call only sets the point that the next one measures from

    def describe(self) -> Iterable[Metric]:
        return (_family(spec) for spec in (CPU_USAGE, MEMORY_USAGE, MEMORY_TOTAL, GPU_MEMORY_USAGE, GPU_MEMORY_TOTAL))

    def collect(self) -> Iterator[Metric]:
        memory, gpu_memory = psutil.virtual_memory(), read_gpu_memory()
        yield _family(CPU_USAGE, psutil.cpu_percent())
        yield _family(MEMORY_USAGE, memory.used)
        yield _family(MEMORY_TOTAL, memory.total)
        yield _family(GPU_MEMORY_USAGE, gpu_memory.used_bytes)
        yield _family(GPU_MEMORY_TOTAL, gpu_memory.total_bytes)


class _ConfigFigures(Collector):
    """Which settings are in effect, in one word."""

    def __init__(self, read_fingerprint: Callable[[], str]) -> None:
        self._read = read_fingerprint

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(CONFIG_INFO.name, CONFIG_INFO.help, value={"fingerprint": self._read()})


class _LogFigures(Collector):
    """What became of log lines."""

    def __init__(self, count_dropped: Callable[[], int]) -> None:
        self._count = count_dropped

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _family(LOG_DROPPED, self._count())


class _EngineFigures(Collector):
    """What the engine says of itself, read once a scrape: that runs in another thread, and what the loop does meanwhile
    must show in all figures or in none.
    """

    def __init__(self, engine: EngineClient, model: str, fingerprint: str) -> None:
        self._engine = engine
        self._model = model
        self._fingerprint = fingerprint

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        engine, stats = self._engine, self._engine.stats
        for spec in ENGINE_FIGURES:
            assert spec.read is not None
            yield _family(spec, spec.read(engine, stats))
        tokens = CounterMetricFamily(TOKENS.name, TOKENS.help, labels=TOKENS.labels)
        tokens.add_metric(["source"], stats.source_tokens)
        tokens.add_metric(["target"], stats.target_tokens)
        yield tokens
        bounds = [*map(floatToGoString, STEP_BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(stats.step_counts)), strict=True))
        yield HistogramMetricFamily(STEP_DURATION.name, STEP_DURATION.help, buckets=buckets, sum_value=stats.step_s)
        states = GaugeMetricFamily(ENGINE_STATE.name, ENGINE_STATE.help, labels=ENGINE_STATE.labels)
        for state in EngineState:
            states.add_metric([state.value], float(state is engine.state))
        yield states
        info = engine.info
        about = {"version": __version__, "python": platform.python_version()}
        about |= {"model": self._model, "fingerprint": self._fingerprint}
        about |= {"device": info.device, "dtype": info.dtype} if info else {"device": "", "dtype": ""}
        yield InfoMetricFamily(INFO.name, INFO.help, value=about)


def _family(spec: MetricSpec, value: float | None = None) -> Metric:
    family = CounterMetricFamily if spec.kind is Kind.COUNTER else GaugeMetricFamily
    return family(spec.name, spec.help, value=value)
