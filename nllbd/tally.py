"""Counters, gauges and histograms for figures that change many times a request: plain numbers in a dictionary.

They cost a third of prometheus-client's own, which lock and check at each step; it still does all the writing, from
what `collect` gives it. Recorded on one event loop; a scrape reads from another thread. Knows no metric by name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_Values = tuple[str, ...]


class _Labelled(Collector):
    """What counters and histograms share: a name, and values for each combination of labels that came up."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self._name = name
        self._about = about
        self._labels = tuple(labels)

    def describe(self) -> Iterator[Metric]:
        yield from self.collect()

    def _key(self, labels: Mapping[str, str]) -> _Values:
        """The labels' values in the declared order. Raises ValueError for labels that were not declared."""
        names = tuple(labels)
        if names == self._labels:
            return tuple(labels.values())
        if sorted(names) != sorted(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {names}")
        return tuple(labels[name] for name in self._labels)


class Tally(_Labelled):
    """A counter or a gauge. Without labels it is there from the start, at 0."""

    def __init__(self, name: str, about: str, labels: Sequence[str] = (), *, is_counter: bool = True) -> None:
        super().__init__(name, about, labels)
        self._is_counter = is_counter
        self._values: dict[_Values, float] = {} if labels else {(): 0.0}

    def add(self, amount: float, labels: Mapping[str, str]) -> None:
        """Raises ValueError when a counter would go down."""
        if amount < 0 and self._is_counter:
            raise ValueError(f"{self._name} is a counter: it cannot go down by {-amount}")
        key = self._key(labels) if labels or self._labels else ()
        self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, value: float, labels: Mapping[str, str]) -> None:
        """Raises TypeError for a counter."""
        if self._is_counter:
            raise TypeError(f"{self._name} is a counter: it cannot be set")
        self._values[self._key(labels)] = float(value)

    def value(self, labels: Mapping[str, str]) -> float:
        return self._values.get(self._key(labels), 0.0)

    def collect(self) -> Iterator[Metric]:
        make = CounterMetricFamily if self._is_counter else GaugeMetricFamily
        family = make(self._name, self._about, labels=self._labels)
        # A copy in one step, for the loop may add a row meanwhile; a list of the items is not one: its tuples may set
        # off a collection of garbage, and that the other thread.
        for key, value in self._values.copy().items():
            family.add_metric(key, value)
        yield family


class _Distribution:
    """How many values fell into each bucket (the last one has no upper bound), and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self, num_buckets: int) -> None:
        self.counts = [0] * (num_buckets + 1)
        self.sum = 0.0


class Histogram(_Labelled):
    """Values by the bucket they fall into; `buckets` are upper bounds, ascending."""

    def __init__(self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        super().__init__(name, about, labels)
        self._bounds = tuple(buckets)
        self._names: list[str] = [floatToGoString(bound) for bound in (*buckets, inf)]  # type: ignore[no-untyped-call]
        self._rows: dict[_Values, _Distribution] = {} if labels else {(): _Distribution(len(self._bounds))}

    def observe(self, value: float, labels: Mapping[str, str]) -> None:
        key = self._key(labels) if labels or self._labels else ()
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Distribution(len(self._bounds))
        row.counts[bisect_left(self._bounds, value)] += 1
        row.sum += value

    def value(self, labels: Mapping[str, str]) -> float:
        """How many values there were."""
        row = self._rows.get(self._key(labels))
        return float(sum(row.counts)) if row else 0.0

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for key, row in self._rows.copy().items():
            buckets = list(zip(self._names, map(float, accumulate(list(row.counts))), strict=True))
            family.add_metric(key, buckets, row.sum)
        yield family
