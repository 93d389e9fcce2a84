from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from nllbd.sched.deadlines import SLACK, DeadlineHeap
from nllbd.sched.sequence import Sequence


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(0, 50))
def test_what_is_due_comes_once_in_order(deadlines: list[int], now: int) -> None:
    heap = DeadlineHeap()
    for seq_id, deadline in enumerate(deadlines):
        heap.push(seq_id, deadline, {})
    due = list(heap.due(now))
    assert [deadlines[seq_id] for seq_id in due] == sorted(deadline for deadline in deadlines if deadline <= now)
    assert list(heap.due(now)) == []


def test_what_never_expires_costs_nothing() -> None:
    heap = DeadlineHeap()
    heap.push(1, math.inf, {})
    heap.push(2, math.nan, {})
    assert len(heap) == 0


def test_memory_stays_bounded_and_live_deadlines_survive(make_sequence: Callable[..., Sequence]) -> None:
    heap, live = DeadlineHeap(), {}
    for seq_id in range(10 * SLACK):
        live[seq_id] = make_sequence(seq_id, deadline=1000.0 + seq_id)
        heap.push(seq_id, 1000.0 + seq_id, live)
        assert len(heap) <= 2 * len(live) + SLACK
        live.pop(seq_id - 10, None)
    assert set(live) <= set(heap.due(math.inf))
