"""Admission: memory caps, the queue against the deadline, and a speed that is only measured when it means something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.admission import Admission, RateMeter, Ticket
from nllbd.errors import NllbdError, Overloaded, TextTooLong
from nllbd.sched.sequence import Priority


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ticket(tokens: int, segments: int = 1, lanes: int = 1, priority: Priority = Priority.INTERACTIVE) -> Ticket:
    return Ticket(priority, segments, tokens, lanes)


def at_rate(rate: float, max_tokens: int = 10_000_000) -> Admission:
    admission = Admission(max_segments=1_000_000, max_tokens=max_tokens, clock=Clock())
    admission.meter.rate = rate
    return admission


def test_without_a_measured_rate_only_memory_counts() -> None:
    admission = Admission(max_segments=10, max_tokens=1000, clock=Clock())
    admission.enter(ticket(900), timeout_s=0.001)
    with pytest.raises(Overloaded) as refused:
        admission.enter(ticket(200), timeout_s=60)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1


def test_what_can_never_fit_is_too_long_even_when_idle() -> None:
    admission = Admission(max_segments=10, max_tokens=1000, clock=Clock())
    for too_much in (ticket(1001), ticket(10, segments=11)):
        with pytest.raises(TextTooLong):
            admission.enter(too_much, timeout_s=60)


def test_a_queue_longer_than_the_deadline_is_refused_with_the_time_it_needs() -> None:
    admission = at_rate(100.0)
    for _ in range(10):
        admission.enter(ticket(1000), timeout_s=1000)
    with pytest.raises(Overloaded) as refused:
        admission.enter(ticket(1000), timeout_s=60)
    assert refused.value.retry_after_s == 59  # 11,000 tokens take 110 s; 85 % of 60 s may be planned for
    admission.enter(ticket(1000), timeout_s=130)


def test_a_line_is_not_refused_because_of_a_book() -> None:
    admission = at_rate(100.0)
    admission.enter(ticket(100_000, segments=2000), timeout_s=2000)
    admission.enter(ticket(20), timeout_s=1)


def test_bulk_work_does_not_count_for_interactive_requests() -> None:
    admission = at_rate(100.0)
    for _ in range(10):
        admission.enter(ticket(1000, priority=Priority.BULK), timeout_s=1000)
    admission.enter(ticket(1000), timeout_s=11)
    with pytest.raises(Overloaded):
        admission.enter(ticket(1000, priority=Priority.BULK), timeout_s=11)


def test_what_is_too_slow_by_itself_is_left_to_its_deadline() -> None:
    admission = at_rate(10.0)
    admission.enter(ticket(50), timeout_s=60)
    admission.enter(ticket(10_000), timeout_s=60)


def test_finished_segments_make_room_and_beams_weigh() -> None:
    admission = at_rate(100.0)
    first = ticket(1000, segments=10, lanes=4)
    admission.enter(first, timeout_s=60)
    second = ticket(1000, segments=10, lanes=4)
    with pytest.raises(Overloaded):
        admission.enter(second, timeout_s=60)
    for _ in range(5):
        admission.finish_segment(first, 100, saturated=False)
    admission.enter(second, timeout_s=71)


def test_the_rate_is_measured_only_while_saturated() -> None:
    clock = Clock()
    meter = RateMeter(clock)
    for _ in range(10):
        clock.now += 1.0
        meter.record(10, saturated=False)
    assert meter.rate is None
    for _ in range(4):
        clock.now += 0.5
        meter.record(200, saturated=True)
    assert meter.rate == pytest.approx(400.0)


def test_a_break_in_saturation_starts_the_sample_afresh() -> None:
    clock = Clock()
    meter = RateMeter(clock)
    meter.record(1, saturated=True)
    clock.now += 50.0
    meter.record(1, saturated=False)
    meter.record(1, saturated=True)
    clock.now += 1.0
    meter.record(300, saturated=True)
    assert meter.rate == pytest.approx(300.0)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 20), st.integers(1, 4), st.booleans()), max_size=30))
def test_sums_come_back_to_zero(jobs: list[tuple[int, int, int, bool]]) -> None:
    admission = Admission(max_segments=100, max_tokens=2000, clock=Clock())
    entered = []
    for tokens, segments, lanes, is_bulk in jobs:
        made = ticket(tokens, segments, lanes, Priority.BULK if is_bulk else Priority.INTERACTIVE)
        try:
            admission.enter(made, timeout_s=10)
        except NllbdError:
            continue
        entered.append(made)
        assert admission.num_segments <= 100
        assert admission.num_tokens <= 2000
    for made in entered:
        if made.num_segments > 1:
            admission.finish_segment(made, made.num_tokens // made.num_segments, saturated=False)
        admission.leave(made)
    assert (admission.num_segments, admission.num_tokens, admission.work_ahead(ticket(10))) == (0, 0, 0)
    assert admission._work == 0


def test_before_a_measured_rate_single_segments_tell() -> None:
    admission = Admission(max_segments=1000, max_tokens=1_000_000, clock=Clock())
    for rate in (100.0, 100.0, 90.0):
        admission.meter.suppose(rate)
    assert admission.meter.best == pytest.approx(97.0)
    admission.enter(ticket(1000), timeout_s=12)
    with pytest.raises(Overloaded):
        admission.enter(ticket(1000), timeout_s=12)
    admission.meter.rate = 500.0  # what was measured counts from then on, and alone
    admission.meter.suppose(1.0)
    assert admission.meter.best == 500.0
    admission.enter(ticket(1000), timeout_s=12)
