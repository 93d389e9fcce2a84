"""The queueing model: processor sharing whose total rate depends on how many requests are in the engine. Pure.

Continuous batching takes a sentence in at any step and gives each one its share of every step, so a host is not k
servers with a line before them but one server shared by all, which gets faster the more it has to do until the batch is
full: n requests together are completed at X(n) a second, and X is what measure.py measures. With Poisson arrivals of
rate λ the number in the system is a birth-and-death chain, p(n) ∝ λ^n / (X(1)·…·X(n)), and for processor sharing that
holds whatever the distribution of the requests' sizes is (insensitivity: Cohen 1979, Kelly 1979); only their mean
counts, and that is in X. Mean time in the system by Little: E[n]/λ.

For percentiles, an arrival that finds n others is taken to be served as one of n + 1 all the time: (n + 1)/X(n + 1),
times its own size over the mean one. That neglects that the company changes meanwhile, and is near the truth as long as
the system is not close to saturation, which `utilisation` sees to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_MOST = 20_000
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class ServiceCurve:
    """Requests completed a second while n are in the system; between measured points in proportion, beyond the last
    one constant. `sizes`: times of single requests over their mean, equally likely.
    """

    points: Mapping[int, float]
    sizes: Sequence[float] = field(default=(1.0,))

    def rate(self, n: int) -> float:
        counts = sorted(self.points)
        if n <= counts[0]:
            return self.points[counts[0]] * n / counts[0]
        if n >= counts[-1]:
            return self.points[counts[-1]]
        right = bisect_right(counts, n)
        low, high = counts[right - 1], counts[right]
        share = (n - low) / (high - low)
        return self.points[low] + share * (self.points[high] - self.points[low])

    @property
    def saturated(self) -> float:
        """The most that it completes a second."""
        return max(self.points.values())


@dataclass(frozen=True, slots=True)
class Load:
    """What the model says of one arrival rate (requests a second); times in seconds."""

    arrivals: float
    utilisation: float
    mean_s: float
    p95_s: float
    mean_number: float


def load_at(curve: ServiceCurve, arrivals: float) -> Load | None:
    """None if the host cannot keep up with that rate."""
    last = curve.rate(_MOST)
    if arrivals <= 0 or arrivals >= last:
        return None
    weights = [1.0]
    for n in range(1, _MOST):
        weights.append(weights[-1] * arrivals / curve.rate(n))
        if weights[-1] < _NEGLIGIBLE * max(weights) and curve.rate(n) > arrivals:
            break
    total = sum(weights)
    probabilities = [weight / total for weight in weights]
    mean_number = sum(n * share for n, share in enumerate(probabilities))
    return Load(arrivals, arrivals / last, mean_number / arrivals, _percentile(curve, probabilities, 0.95), mean_number)


def most_arrivals(curve: ServiceCurve, p95_s: float, utilisation: float) -> Load | None:
    """The highest rate at which 95 % are served within `p95_s` and no more than `utilisation` of the rate at
    saturation is used; None if not even a lone request is that fast.
    """
    low, high = 0.0, utilisation * curve.saturated
    best = None
    for _ in range(40):
        middle = (low + high) / 2
        found = load_at(curve, middle)
        if found is not None and found.p95_s <= p95_s:
            low, best = middle, found
        else:
            high = middle
    return best


def _percentile(curve: ServiceCurve, probabilities: Sequence[float], share: float) -> float:
    """Of the time of an arrival, over how many it finds and how large it is."""
    times = sorted(
        ((n + 1) / curve.rate(n + 1) * size, probability / len(curve.sizes))
        for n, probability in enumerate(probabilities)
        for size in curve.sizes
    )
    below = 0.0
    for time_s, weight in times:
        below += weight
        if below >= share:
            return time_s
    return times[-1][0]
