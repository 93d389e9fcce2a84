"""Who is on board, and when the host must wait."""

import torch

from nllbd.engine.flight import Arrangement, Flight, Live
from nllbd.sched.sequence import SearchParams, SequenceRequest


def _live(slot: int, first_launch: int, max_length: int, source: int = 3, fresh: bool = False) -> Live:
    params = SearchParams(max_length=max_length)
    return Live(SequenceRequest(slot, (5,) * source, 7, params, 0.0), slot, first_launch, fresh)


def test_lengths_are_counted_not_read() -> None:
    live = _live(0, first_launch=10, max_length=6)
    assert [live.length(launches) for launches in (10, 11, 14)] == [2, 3, 6]
    assert live.last_launch == 13  # launches 10, 11, 12 and 13 decide positions 2, 3, 4 and 5


def test_an_arrangement_knows_the_first_end_and_the_longest_history() -> None:
    now = Arrangement.of({1: _live(1, 4, 30, source=9), 3: _live(3, 8, 10, fresh=True)}, num_rows=6)
    assert (now.first_end, now.oldest, now.has_fresh) == (15, 4, True)
    assert [now.longest(launches) for launches in (8, 20)] == [9, 18]


def test_flags_of_free_slots_mean_nobody() -> None:
    by_slot = {1: _live(1, 0, 9), 2: _live(2, 0, 9)}
    flight = Flight(by_slot, torch.tensor([True, False, True, True]), None, must_land=False)
    assert flight.wait() == [by_slot[2]]
