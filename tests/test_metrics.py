"""Metrics: the declared table is what a scrape shows, under the promised names, without an unbounded label."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from nllbd import gpu
from nllbd import metrics as m
from nllbd.bridge.protocol import EngineClient, EngineInfo, EngineState, EngineStats

GUIDE_NAMES = {
    "system_cpu_usage_percent",
    "system_memory_usage_bytes",
    "gpu_memory_usage_bytes",
    "translation_requests_total",
    "translation_duration_seconds",
}
API_NAMES = {
    "nllbd_num_sequences_running",
    "nllbd_num_sequences_waiting",
    "nllbd_kv_cache_usage_ratio",
    "nllbd_request_duration_seconds",
    "nllbd_queue_time_seconds",
    "nllbd_step_duration_seconds",
    "nllbd_batch_lanes",
    "nllbd_tokens_total",
    "nllbd_rejected_total",
    "nllbd_guard_total",
    "nllbd_cache_requests_total",
}
BOUNDED_LABELS = {"link", "method", "route", "status", "code", "reason", "result", "kind", "state"}


@dataclass
class FakeClient:
    """The part of an `EngineClient` that a scrape reads."""

    state: EngineState = EngineState.READY
    info: EngineInfo | None = None
    stats: EngineStats = field(default_factory=EngineStats)
    num_restarts: int = 0


def scrape(metrics: m.Metrics) -> str:
    return metrics.render()[0].decode()


def with_engine(client: FakeClient) -> m.Metrics:
    metrics = m.Metrics(cast("EngineClient", client), "demo", "0123abcd")
    metrics.watch_settings(lambda: "feedbeef")
    metrics.watch_log(lambda: 0)
    return metrics


def test_every_declared_metric_is_exposed_and_nothing_else() -> None:
    shown = set(re.findall(r"^# TYPE (\S+)", scrape(with_engine(FakeClient())), re.MULTILINE))
    declared = {spec.name + ("_info" if spec.kind is m.Kind.INFO else "") for spec in m.TABLE}
    extra = {name for name in shown - declared if not name.endswith("_created") and not name.startswith("process_")}
    assert declared <= shown
    assert extra == set()


@pytest.mark.parametrize("name", sorted(GUIDE_NAMES | API_NAMES))
def test_promised_names(name: str) -> None:
    assert re.search(rf"^{name}(_count|{{| )", scrape(with_engine(FakeClient())), re.MULTILINE) or name in {
        spec.name for spec in m.TABLE if spec.labels
    }


def test_names_are_unique_and_follow_the_conventions() -> None:
    names = [spec.name for spec in m.TABLE]
    assert len(names) == len(set(names))
    for spec in m.TABLE:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.name)
        assert (spec.kind is m.Kind.COUNTER) == spec.name.endswith("_total"), spec.name
        assert spec.help.endswith(".")
        assert bool(spec.buckets) == (spec.kind is m.Kind.HISTOGRAM)


def test_no_label_without_a_bound() -> None:
    assert {label for spec in m.TABLE for label in spec.labels} <= BOUNDED_LABELS


def test_buckets_ascend() -> None:
    for spec in m.TABLE:
        assert list(spec.buckets) == sorted(set(spec.buckets))


def test_counters_gauges_and_histograms_count() -> None:
    metrics = m.Metrics()
    metrics.add(m.GUARD, kind="repetition")
    metrics.add(m.GUARD, 2, kind="repetition")
    metrics.set(m.ADMITTED_TOKENS, 7)
    metrics.observe(m.QUEUE_TIME, 0.2)
    assert metrics.value(m.GUARD, kind="repetition") == 3
    assert metrics.value(m.ADMITTED_TOKENS) == 7
    assert metrics.value(m.QUEUE_TIME) == 1


def test_a_scrape_is_one_look_at_the_engine() -> None:
    """It is made in another thread: the engine's process may end between any two of its lines."""

    class Dying(FakeClient):
        def __getattribute__(self, name: str) -> object:
            if name == "stats":  # figures once, then those of a process that is gone
                found, self.stats = object.__getattribute__(self, name), EngineStats()
                return found
            return object.__getattribute__(self, name)

    shown = scrape(with_engine(Dying(stats=EngineStats(num_running=3, used_blocks=5, num_blocks=20))))
    assert "nllbd_num_sequences_running 3.0" in shown
    assert "nllbd_kv_cache_usage_ratio 0.25" in shown


def test_two_registries_share_nothing() -> None:
    one, other = m.Metrics(), m.Metrics()
    one.add(m.CANCELLED)
    assert other.value(m.CANCELLED) == 0


def test_engine_figures_are_read_when_scraped() -> None:
    client = FakeClient()
    metrics = with_engine(client)
    client.stats = EngineStats(
        num_running=3,
        used_blocks=5,
        num_blocks=20,
        source_tokens=11,
        target_tokens=13,
        steps=4,
        step_s=3.0,
        step_counts=(0, 0, 0, 1, 2) + (0,) * 8 + (1,),
    )
    client.info = EngineInfo("cpu", "int8", 20, 16, 64, 512, 2, 1.0, 1)
    client.num_restarts = 2
    text = scrape(metrics)
    assert "nllbd_num_sequences_running 3.0" in text
    assert "nllbd_kv_cache_usage_ratio 0.25" in text
    assert 'nllbd_tokens_total{kind="source"} 11.0' in text
    assert 'nllbd_tokens_total{kind="target"} 13.0' in text
    assert "nllbd_step_duration_seconds_count 4.0" in text
    assert "nllbd_step_duration_seconds_sum 3.0" in text
    assert 'nllbd_step_duration_seconds_bucket{le="0.005"} 1.0' in text
    assert 'nllbd_step_duration_seconds_bucket{le="5.0"} 3.0' in text
    assert 'nllbd_step_duration_seconds_bucket{le="+Inf"} 4.0' in text
    assert "nllbd_engine_restarts_total 2.0" in text
    assert 'nllbd_engine_state{state="ready"} 1.0' in text
    assert 'nllbd_engine_state{state="failed"} 0.0' in text
    assert re.search(r'nllbd_info\{.*device="cpu".*fingerprint="0123abcd".*python="3.*version=".*\} 1.0', text)
    assert 'nllbd_config_info{fingerprint="feedbeef"} 1.0' in text


def test_an_empty_pool_is_no_division_by_zero() -> None:
    assert "nllbd_kv_cache_usage_ratio 0.0" in scrape(with_engine(FakeClient()))


def test_openmetrics_for_who_asks_for_it() -> None:
    body, content_type = m.Metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


class FakeNvml:
    NVMLError = RuntimeError

    def __init__(self, used: list[int], broken: bool = False) -> None:
        self.used = used
        self.broken = broken

    def nvmlInit(self) -> None:  # noqa: N802  # NVML's own names
        if self.broken:
            raise RuntimeError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self.used[handle], total=100)


@pytest.mark.parametrize(
    ("module", "expected"),
    [(FakeNvml([10, 32]), gpu.GpuMemory(42, 200)), (FakeNvml([1], broken=True), gpu.GpuMemory())],
)
def test_gpu_memory_is_summed_and_absent_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, module: FakeNvml, expected: gpu.GpuMemory
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", module)
    gpu._nvml.cache_clear()
    assert gpu.read_gpu_memory() == expected
    gpu._nvml.cache_clear()


def test_what_is_alerted_on_is_there_before_it_first_happens() -> None:
    text = scrape(m.Metrics())
    assert 'nllbd_errors_total{code="internal"} 0.0' in text
    assert 'nllbd_rejected_total{reason="overloaded"} 0.0' in text
    assert 'nllbd_config_reloads_total{result="failed"} 0.0' in text
