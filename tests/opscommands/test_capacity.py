"""The queueing model against a simulation and against what is known; the tables of the document."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from nllbd.ops.capacity import roofline, tables
from nllbd.ops.capacity.model import ServiceCurve, load_at, most_arrivals
from nllbd.ops.capacity.tiers import TIERS, Habits, hosts_for, largest

DOCUMENT = Path(__file__).parents[2] / "docs/operations/capacity.md"


def test_a_constant_rate_is_the_well_known_queue() -> None:
    """M/M/1: E[T] = 1 / (μ - λ)."""
    found = load_at(ServiceCurve({1: 10.0}), 8.0)
    assert found is not None
    assert found.mean_s == pytest.approx(0.5, rel=1e-3)
    assert found.utilisation == pytest.approx(0.8)


def test_a_rate_in_proportion_has_no_queue() -> None:
    """M/M/∞, as long as the curve rises: everybody takes what a lone request takes."""
    found = load_at(ServiceCurve({1: 2.0, 1000: 2000.0}), 50.0)
    assert found is not None
    assert found.mean_s == pytest.approx(0.5, rel=1e-6)


def test_more_than_it_can_do_is_no_load() -> None:
    curve = ServiceCurve({1: 1.0, 4: 3.0})
    assert load_at(curve, 3.0) is None
    assert most_arrivals(curve, p95_s=0.5, utilisation=0.9) is None, "a lone request takes a second"


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["all sizes equal", "sizes vary"])
def test_the_model_agrees_with_a_simulation_whatever_the_sizes(spread: float) -> None:
    """Insensitivity: processor sharing with a rate X(n), simulated, has the mean that the chain says."""
    exponential = tuple(-math.log(1 - (index + 0.5) / 200) for index in range(200))
    curve = ServiceCurve({1: 4.0, 2: 6.0, 4: 9.0, 8: 12.0, 16: 14.0}, exponential if spread else (1.0,))
    expected = load_at(curve, 8.4)
    assert expected is not None
    times = _simulated(curve, 8.4, spread, num_requests=20_000)
    assert sum(times) / len(times) == pytest.approx(expected.mean_s, rel=0.08)
    assert sorted(times)[int(0.95 * len(times))] == pytest.approx(expected.p95_s, rel=0.25), "an estimate"


def _simulated(curve: ServiceCurve, arrivals: float, spread: float, num_requests: int) -> list[float]:
    """Times in the system. Every request in there gets an equal share of the rate for as many as there are."""
    draw = random.Random(7)
    now, next_arrival, done = 0.0, 0.0, []
    jobs: list[list[float]] = []  # work left, when it came
    while len(done) < num_requests:
        share = curve.rate(len(jobs)) / len(jobs) if jobs else 0.0
        first = min((job[0] for job in jobs), default=float("inf"))
        ends = now + first / share if jobs else float("inf")
        until = min(next_arrival, ends)
        for job in jobs:
            job[0] -= share * (until - now)
        now = until
        if ends <= next_arrival:
            job = min(jobs)
            jobs.remove(job)
            done.append(now - job[1])
        else:
            size = draw.expovariate(1.0) if spread else 1.0
            jobs.append([size, now])
            next_arrival = now + draw.expovariate(arrivals)
    return done


def test_the_rate_between_points_is_in_proportion() -> None:
    curve = ServiceCurve({1: 2.0, 4: 5.0})
    assert [curve.rate(n) for n in (1, 2, 3, 4, 9)] == pytest.approx([2.0, 3.0, 4.0, 5.0, 5.0])


def test_most_arrivals_keeps_both_bounds() -> None:
    curve = ServiceCurve({1: 4.0, 16: 14.0})
    found = most_arrivals(curve, p95_s=0.9, utilisation=0.7)
    assert found is not None
    assert found.p95_s <= 0.9
    assert found.utilisation <= 0.7 + 1e-9
    slow = most_arrivals(curve, p95_s=0.3, utilisation=0.7)
    assert slow is not None
    assert slow.arrivals < found.arrivals


def test_tiers() -> None:
    assert [tier.name for tier in TIERS] == ["small", "medium", "large"]
    assert largest(99) is None
    assert largest(1200) == TIERS[1]
    assert [hosts_for(tier, 400) for tier in TIERS] == [1, 4, 14]
    assert hosts_for(TIERS[0], 0) is None
    assert Habits(requests_per_minute=2).users(10.0) == 300


def test_the_roofline_is_no_faster_than_its_parts() -> None:
    """Twice the device is at most twice as fast; no device beats its arithmetic."""
    small = roofline.Device("x", 50e12, 500e9, 8e9)
    large = roofline.Device("y", 100e12, 1000e9, 8e9)
    one, two = roofline.sentences_per_s(small), roofline.sentences_per_s(large)
    assert one < two <= 2 * one
    shape, mix = roofline.Shape(), roofline.Sentences()
    work = 2 * (shape.decoder + shape.projection) * mix.beams * mix.target
    assert one * work < small.flops


def test_the_shape_is_that_of_the_model() -> None:
    """615 M weights, embeddings counted once."""
    shape = roofline.Shape()
    assert shape.encoder + shape.decoder + shape.projection == pytest.approx(615e6, rel=0.01)


def test_the_tables_of_the_document_are_the_codes() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert tables.markdown() in text, "write them anew: nllbd ops capacity --tables"
    assert "**measured**" in tables.markdown()
    assert tables.markdown().count("computed") == len(tables.rows()) - 1
