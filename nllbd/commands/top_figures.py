"""What `nllbd top` shows, made of two scrapes of `/metrics` and, with an admin's key, of `/debug/engine`. Pure.

Rates and percentiles are those of the time between the two scrapes; percentiles are read off histograms, between the
bounds of a bucket in proportion, as Prometheus does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape, taken at `at` (monotonic seconds): sample name → its labels → value."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def value(self, name: str) -> float:
        """A sample without labels; 0.0 if there is none."""
        return self.samples.get(name, {}).get((), 0.0)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Samples of one name, by one of their labels, summed over the others."""
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found

    def info(self, name: str) -> dict[str, str]:
        """The labels of an info metric."""
        return dict(next(iter(self.samples.get(name, {})), ()))


def parse_scrape(text: str, at: float) -> Scrape:
    """Raises ValueError for what is no exposition."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    if "nllbd_info" not in samples:
        raise ValueError("no metrics of nllbd")
    return Scrape(at, samples)


@dataclass(frozen=True, slots=True)
class Account:
    """One of the busiest accounts: its rates over about the last minute, and what it has in the engine now."""

    account: str
    requests_per_s: float
    characters_per_s: float
    refused_per_s: float
    num_lanes: int = 0
    num_waiting: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The view's content. Times in milliseconds; None where nothing happened that could be measured.

    `max_lanes` and `accounts` need an admin's key: None without one. `errors_total` leaves refusals out.
    """

    version: str
    model: str
    device: str
    dtype: str
    state: str
    lanes: int
    max_lanes: int | None
    running: int
    waiting: int
    waiting_tokens: int
    kv_usage: float
    tokens_per_s: float
    steps_per_s: float
    step_p50_ms: float | None
    step_p95_ms: float | None
    requests_per_s: float
    translations_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    queue_p95_ms: float | None
    rejected_per_s: dict[str, float] = field(default_factory=dict)
    rejected_total: int = 0
    errors_total: int = 0
    cache_hit_ratio: float | None = None
    preemptions: int = 0
    restarts: int = 0
    accounts: tuple[Account, ...] | None = None


def compare(now: Scrape, before: Scrape, engine: Mapping[str, Any] | None) -> Figures:
    """The figures of the time between two scrapes. `engine`: the body of `/debug/engine`."""
    about, states = now.info("nllbd_info"), now.by_label("nllbd_engine_state", "state")
    rejected = _rates(now, before, "nllbd_rejected_total", "reason")
    return Figures(
        version=about.get("version", ""),
        model=about.get("model", ""),
        device=about.get("device", ""),
        dtype=about.get("dtype", ""),
        state=next((state for state, value in states.items() if value == 1.0), "unknown"),
        lanes=int(now.value("nllbd_batch_lanes")) if now.value("nllbd_num_sequences_running") else 0,
        max_lanes=engine["scheduler"]["max_num_lanes"] if engine else None,
        running=int(now.value("nllbd_num_sequences_running")),
        waiting=int(now.value("nllbd_num_sequences_waiting")),
        waiting_tokens=int(now.value("nllbd_waiting_tokens")),
        kv_usage=now.value("nllbd_kv_cache_usage_ratio"),
        tokens_per_s=_rates(now, before, "nllbd_tokens_total", "kind").get("target", 0.0),
        steps_per_s=_rate(now, before, "nllbd_step_duration_seconds_count"),
        step_p50_ms=_percentile_ms(now, before, "nllbd_step_duration_seconds", 0.50),
        step_p95_ms=_percentile_ms(now, before, "nllbd_step_duration_seconds", 0.95),
        requests_per_s=sum(_rates(now, before, "nllbd_http_requests_total", "status").values()),
        translations_per_s=_rate(now, before, "translation_duration_seconds_count"),
        p50_ms=_percentile_ms(now, before, "translation_duration_seconds", 0.50),
        p95_ms=_percentile_ms(now, before, "translation_duration_seconds", 0.95),
        queue_p95_ms=_percentile_ms(now, before, "nllbd_queue_time_seconds", 0.95),
        rejected_per_s={reason: rate for reason, rate in rejected.items() if rate},
        rejected_total=_total(now, "nllbd_rejected_total"),
        errors_total=_total(now, "nllbd_errors_total") - _total(now, "nllbd_rejected_total"),
        cache_hit_ratio=_hit_ratio(now, before),
        preemptions=int(now.value("nllbd_preemptions_total")),
        restarts=int(now.value("nllbd_engine_restarts_total")),
        accounts=_accounts(engine) if engine else None,
    )


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which `share` of the observations lie. `buckets`: upper bound → how many are at or below it.

    None without observations. What lies beyond the last bound is said to lie at it.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        below, lower = buckets[bound], bound
    return lower


def _total(now: Scrape, name: str) -> int:
    return int(sum(now.samples.get(name, {}).values()))


def _rate(now: Scrape, before: Scrape, name: str) -> float:
    """A counter's rate; its whole value counts when it began anew."""
    return _grown(now.value(name), before.value(name)) / _elapsed(now, before)


def _rates(now: Scrape, before: Scrape, name: str, label: str) -> dict[str, float]:
    old = before.by_label(name, label)
    return {
        key: _grown(value, old.get(key, 0.0)) / _elapsed(now, before)
        for key, value in now.by_label(name, label).items()
    }


def _percentile_ms(now: Scrape, before: Scrape, name: str, share: float) -> float | None:
    old = before.by_label(f"{name}_bucket", "le")
    buckets = {
        float(bound): _grown(value, old.get(bound, 0.0))
        for bound, value in now.by_label(f"{name}_bucket", "le").items()
    }
    seconds = quantile(share, buckets)
    return None if seconds is None else seconds * 1000


def _hit_ratio(now: Scrape, before: Scrape) -> float | None:
    rates = _rates(now, before, "nllbd_cache_requests_total", "result")
    total = sum(rates.values())
    return 1.0 - rates.get("miss", 0.0) / total if total else None


def _grown(value: float, old: float) -> float:
    return value - old if value >= old else value


def _elapsed(now: Scrape, before: Scrape) -> float:
    return max(now.at - before.at, 1e-9)


def _accounts(engine: Mapping[str, Any]) -> tuple[Account, ...]:
    held: dict[str, tuple[int, int]] = {}
    for row in engine["clients"]:
        lanes, waiting = held.get(row["client"], (0, 0))
        held[row["client"]] = (lanes + row["num_lanes"], waiting + row["num_waiting"])
    return tuple(
        Account(
            row["account"],
            row["requests_per_s"],
            row["characters_per_s"],
            row["refused_per_s"],
            *held.get(row["account"], (0, 0)),
        )
        for row in engine["accounts"]
    )
