from __future__ import annotations

from collections.abc import Callable

import pytest

from nllbd.sched.sequence import Priority, Sequence
from nllbd.sched.waiting import BULK_SHARE_DIVISOR, MEMORY_STEPS, BulkShare, WaitingQueue

Make = Callable[..., Sequence]


def test_interactive_goes_first_until_bulk_is_owed(make_sequence: Make) -> None:
    waiting = WaitingQueue(max_num_lanes=4)
    bulk = make_sequence(1, priority=Priority.BULK)
    interactive = make_sequence(2)
    waiting.push(bulk)
    assert waiting.peek(0, 0) is bulk
    waiting.push(interactive)
    assert waiting.peek(0, 0) is interactive
    waiting.record_step(num_lanes=4, num_bulk_lanes=0)
    assert waiting.peek(4, 0) is bulk
    waiting.pop(bulk)
    assert len(waiting) == 1
    with pytest.raises(ValueError, match="not the next"):
        waiting.pop(make_sequence(3))


def test_bulk_is_not_owed_more_than_its_share() -> None:
    share = BulkShare(max_num_lanes=100)
    share.record(100, 0, bulk_waits=True, interactive_present=True)
    assert share.prefers_bulk(100, 0)
    assert not share.prefers_bulk(100, 100 // BULK_SHARE_DIVISOR + 1), "what runs already pays it back"


def test_without_competition_nothing_is_remembered() -> None:
    share = BulkShare(max_num_lanes=10)
    share.record(10, 0, bulk_waits=True, interactive_present=True)
    share.record(10, 10, bulk_waits=True, interactive_present=False)
    assert not share.prefers_bulk(0, 0)
    share.record(10, 0, bulk_waits=True, interactive_present=True)
    assert share.prefers_bulk(0, 0)


def test_what_bulk_had_is_held_against_it_for_a_limited_time() -> None:
    share = BulkShare(max_num_lanes=10)
    for _ in range(10 * MEMORY_STEPS):
        share.record(10, 10, bulk_waits=True, interactive_present=True)
    for _ in range(MEMORY_STEPS + 1):
        share.record(10, 0, bulk_waits=True, interactive_present=True)
    assert share.prefers_bulk(0, 0)


def test_integrity_finds_a_sequence_in_the_wrong_class(make_sequence: Make) -> None:
    waiting = WaitingQueue(max_num_lanes=4)
    seq = make_sequence(1)
    waiting.push(seq)
    waiting.check_integrity()
    seq.request = make_sequence(1, priority=Priority.BULK).request
    with pytest.raises(AssertionError, match="INTERACTIVE"):
        waiting.check_integrity()
