"""The daemon's figures over time: what `/metrics` said at each daily run, kept as JSON lines, and what lies between.

For hosts without Prometheus; where there is one it is asked instead (prometheus.py).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from nllbd.errors import NotReady
from nllbd.ops.asking import Server

_DURATION = "translation_duration_seconds"
_KEPT = 400


@dataclass(frozen=True, slots=True)
class Figures:
    """One look. Counters count since the daemon's start, `started`. `buckets`: upper bound → translations."""

    at: float
    started: float
    memory_bytes: float
    translations: float
    errors: float
    refused: float
    target_tokens: float
    restarts: float
    buckets: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two looks."""

    translations: float
    per_minute: float
    error_ratio: float
    p95_s: float | None


def look(server: Server) -> Figures:
    """Raises NotReady for what are no metrics of nllbd."""
    answer = server.get("/metrics")
    try:
        families = list(text_string_to_metric_families(answer.body.decode()))
    except ValueError:
        raise NotReady(f"{server.url} answered {answer.status}, and not as /metrics does") from None
    sums: dict[str, float] = {}
    buckets: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        if sample.name == f"{_DURATION}_bucket":
            buckets[sample.labels["le"]] = sample.value
    if "nllbd_info" not in sums:
        raise NotReady(f"{server.url} has no metrics of nllbd")
    tokens = [it for family in families for it in family.samples if it.name == "nllbd_tokens_total"]
    return Figures(
        at=time.time(),
        started=sums.get("process_start_time_seconds", 0.0),
        memory_bytes=sums.get("process_resident_memory_bytes", 0.0),
        translations=sums.get(f"{_DURATION}_count", 0.0),
        errors=sums.get("nllbd_errors_total", 0.0),
        refused=sums.get("nllbd_rejected_total", 0.0),
        target_tokens=sum(it.value for it in tokens if it.labels.get("kind") == "target"),
        restarts=sums.get("nllbd_engine_restarts_total", 0.0),
        buckets=buckets,
    )


def remember(file: Path, figures: Figures) -> None:
    """Add a look to the history; it keeps a year of daily ones. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [json.dumps(asdict(it)) for it in [*history(file), figures][-_KEPT:]]
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.replace(file)


def history(file: Path) -> list[Figures]:
    """The oldest first. Lines that are none are passed over."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [it for it in map(_parsed, lines) if it is not None]


def _parsed(line: str) -> Figures | None:
    try:
        table: dict[str, Any] = json.loads(line)
        return Figures(**table)
    except (ValueError, TypeError):
        return None


def between(old: Figures, new: Figures) -> Span:
    """Since a restart only what came after it is known."""
    same = old.started == new.started
    grown = {name: value - (old.buckets.get(name, 0.0) if same else 0.0) for name, value in new.buckets.items()}
    translations = new.translations - (old.translations if same else 0.0)
    errors = new.errors - new.refused - ((old.errors - old.refused) if same else 0.0)
    since = old.at if same else new.started
    return Span(
        translations=translations,
        per_minute=translations / max((new.at - since) / 60.0, 1e-9),
        error_ratio=errors / max(translations + errors, 1.0),
        p95_s=quantile(0.95, {float(bound): count for bound, count in grown.items()}),
    )


def spans(looks: list[Figures], since: float, until: float) -> list[Span]:
    """The spans that end in a time, in order."""
    return [between(old, new) for old, new in pairwise(looks) if since < new.at <= until]


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """In proportion between a bucket's bounds, as Prometheus has it; None without observations."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
        below, lower = buckets[bound], bound
    return lower
