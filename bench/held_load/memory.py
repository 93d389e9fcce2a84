"""Whether memory is flat: resident bytes of processes over time, and the line that fits them best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

#: Growth over the whole run that is no leak: allocators keep what they once had.
ALLOWED_BYTES = 16 << 20
ALLOWED_SHARE = 0.10
MIN_FIT_S = 20.0

Sample = tuple[float, int]


@dataclass
class Watch:
    """Samples of one process's resident memory: (seconds since it was first seen, bytes)."""

    name: str
    pid: int
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    def sample(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.samples.append((time.monotonic() - self.began, psutil.Process(self.pid).memory_info().rss))


@dataclass(frozen=True)
class Fit:
    """The line through one process's samples after warm-up."""

    name: str
    seconds: float
    mean_bytes: float
    bytes_per_s: float

    @property
    def growth_bytes(self) -> float:
        return self.bytes_per_s * self.seconds

    @property
    def is_flat(self) -> bool:
        return self.growth_bytes <= max(ALLOWED_BYTES, ALLOWED_SHARE * self.mean_bytes)

    def __str__(self) -> str:
        per_minute = self.bytes_per_s * 60 / (1 << 20)
        mean = self.mean_bytes / (1 << 20)
        return f"{self.name}: {mean:.0f} MiB, {per_minute:+.2f} MiB a minute over {self.seconds:.0f} s"


def fit(watch: Watch, warm_up_s: float) -> Fit | None:
    """Least squares over what came after `warm_up_s`; None for a process that did not live long enough to tell."""
    warm = [(at, size) for at, size in watch.samples if at >= warm_up_s]
    if len(warm) < 3 or warm[-1][0] - warm[0][0] < MIN_FIT_S / 4:
        return None
    return Fit(watch.name, warm[-1][0] - warm[0][0], sum(size for _, size in warm) / len(warm), _slope(warm))


def _slope(samples: Sequence[Sample]) -> float:
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean_size = sum(size for _, size in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return sum((at - mean_at) * (size - mean_size) for at, size in samples) / spread if spread else 0.0
