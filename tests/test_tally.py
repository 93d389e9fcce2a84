"""Tallies and histograms: a scrape shows what prometheus-client's own would show."""

from __future__ import annotations

import threading

import prometheus_client as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from nllbd.tally import Histogram, Tally

BOUNDS = (0.005, 0.1, 1.0, 10.0)


def scrape(*collectors: Tally | Histogram) -> str:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return without_created(registry)


def without_created(registry: CollectorRegistry) -> str:
    return "".join(f"{line}\n" for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20)), max_size=12))
def test_a_scrape_is_that_of_prometheus_client(events: list[tuple[str, float]]) -> None:
    counter, gauge = Tally("c_total", "C.", ("k",)), Tally("g", "G.", is_counter=False)
    histogram, bare = Histogram("h", "H.", ("k",), BOUNDS), Histogram("b", "B.", (), BOUNDS)
    registry = CollectorRegistry()
    their_counter = reference.Counter("c_total", "C.", ["k"], registry=registry)
    their_gauge = reference.Gauge("g", "G.", registry=registry)
    their_histogram = reference.Histogram("h", "H.", ["k"], registry=registry, buckets=BOUNDS)
    their_bare = reference.Histogram("b", "B.", registry=registry, buckets=BOUNDS)
    for kind, value in events:
        counter.add(value, {"k": kind})
        gauge.set(value, {})
        gauge.add(-1, {})
        histogram.observe(value, {"k": kind})
        bare.observe(value, {})
        their_counter.labels(k=kind).inc(value)
        their_gauge.set(value)
        their_gauge.dec()
        their_histogram.labels(k=kind).observe(value)
        their_bare.observe(value)
    assert scrape(counter, gauge, histogram, bare) == without_created(registry)


def test_labels_are_told_apart_by_name_not_by_order() -> None:
    tally = Tally("t_total", "T.", ("a", "b"))
    tally.add(1, {"a": "x", "b": "y"})
    tally.add(1, {"b": "y", "a": "x"})
    assert tally.value({"a": "x", "b": "y"}) == 2
    assert tally.value({"a": "y", "b": "x"}) == 0


@pytest.mark.parametrize("labels", [{}, {"a": "x", "c": "y"}, {"a": "x", "b": "y", "c": "z"}])
def test_undeclared_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Tally("t_total", "T.", ("a", "b")).add(1, labels)
    with pytest.raises(ValueError, match="has the labels"):
        Histogram("h", "H.", ("a", "b"), BOUNDS).observe(1, labels)
    with pytest.raises(ValueError, match="has the labels"):
        Tally("t_total", "T.").add(1, {"a": "x"})


def test_a_counter_only_goes_up() -> None:
    with pytest.raises(ValueError, match="cannot go down"):
        Tally("t_total", "T.").add(-1, {})
    with pytest.raises(TypeError, match="cannot be set"):
        Tally("t_total", "T.").set(1, {})


def test_a_scrape_may_come_while_rows_are_added() -> None:
    tally, done = Tally("t_total", "T.", ("k",)), threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                scrape(tally)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        tally.add(1, {"k": str(number)})
    done.set()
    reader.join()
    assert not failures
