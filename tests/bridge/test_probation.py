"""Group testing: the guilty are found, the innocent never fail, and it takes no more deaths than halving does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.bridge.probation import Cause, Probation, Quarantine
from nllbd.sched.sequence import SearchParams, SequenceRequest


class Trial:
    """An engine that dies whenever a killer is in its step, driven by a Probation as the process engine does."""

    def __init__(self, ids: list[int], killers: set[int], lanes: int, outside_kills: list[int]) -> None:
        self.probation = Probation()
        self.waiting = dict.fromkeys(ids)
        self.killers = killers
        self.lanes = lanes
        self.outside_kills = outside_kills
        self.convicted: list[int] = []
        self.finished: list[int] = []
        self.deaths = 0
        self.rounds = 0

    def run(self) -> None:
        while self.waiting:
            self.rounds += 1
            assert self.rounds < 10_000
            group = self.probation.group
            step = list(self.waiting if group is None else group)[: self.lanes]
            assert step, "an empty group would wait for ever"
            if self.killers.intersection(step):
                self.die(step, Cause.FAULT)
            elif self.outside_kills and self.rounds >= self.outside_kills[0]:
                self.outside_kills.pop(0)
                self.die(step, Cause.OUTSIDE)
            else:
                self.end(step[0], self.finished)

    def die(self, step: list[int], cause: Cause) -> None:
        self.deaths += 1
        guilty = self.probation.record_death(step, cause)
        if guilty is not None:
            self.end(guilty, self.convicted)

    def end(self, seq_id: int, where: list[int]) -> None:
        del self.waiting[seq_id]
        where.append(seq_id)
        self.probation.clear(seq_id)


@given(
    num=st.integers(1, 64),
    data=st.data(),
    lanes=st.integers(1, 64),
    kills=st.lists(st.integers(0, 100), max_size=4).map(sorted),
)
def test_exactly_the_killers_are_convicted(num: int, data: st.DataObject, lanes: int, kills: list[int]) -> None:
    killers = data.draw(st.sets(st.integers(0, num - 1), max_size=3))
    trial = Trial(list(range(num)), killers, lanes, kills)
    trial.run()
    assert set(trial.convicted) == killers
    assert set(trial.finished) == set(range(num)) - killers
    assert trial.probation.num_suspects == 0


@given(st.integers(1, 256), st.data())
def test_one_killer_is_found_by_halving(num: int, data: st.DataObject) -> None:
    trial = Trial(list(range(num)), {data.draw(st.integers(0, num - 1))}, num, [])
    trial.run()
    assert trial.deaths <= max(2, math.ceil(math.log2(num)) + 1)


@pytest.mark.parametrize("num_kills", [1, 2, 3, 4])
def test_kills_from_outside_fail_nobody_even_when_alone(num_kills: int) -> None:
    trial = Trial([1], set(), 1, [0] * num_kills)
    trial.run()
    assert trial.finished == [1]


def test_an_input_that_brings_the_memory_killer_is_convicted_at_last() -> None:
    trial = Trial([1], set(), 1, [0] * 5)
    trial.run()
    assert trial.convicted == [1]


def test_two_crashes_alone_convict() -> None:
    probation = Probation()
    assert probation.record_death([7], Cause.FAULT) is None
    assert probation.group == (7,)
    assert probation.record_death([7], Cause.FAULT) == 7


def test_the_newest_half_is_tried_first_and_nothing_else_beside_it() -> None:
    probation = Probation()
    probation.record_death([1, 2, 3, 4], Cause.FAULT)
    assert probation.group == (3, 4)
    assert not probation.clear(3)
    assert probation.clear(4)
    assert probation.group == (1, 2)
    assert not probation.clear(99)
    assert not probation.clear(1)
    assert probation.clear(2)
    assert probation.group is None


def request(*source: int, seq_id: int = 1, num_beams: int = 4) -> SequenceRequest:
    return SequenceRequest(seq_id, source, 9, SearchParams(num_beams=num_beams), 0.0)


def test_quarantine_knows_the_input_not_the_asker() -> None:
    quarantine = Quarantine()
    assert not quarantine.holds(request(1, 2))
    quarantine.add(request(1, 2))
    assert quarantine.holds(request(1, 2, seq_id=50))
    assert not quarantine.holds(request(1, 2, num_beams=5))
    assert not quarantine.holds(request(2, 1))


def test_quarantine_is_bounded_and_forgets() -> None:
    now = [0.0]
    quarantine = Quarantine(max_items=2, ttl_s=10, clock=lambda: now[0])
    for token in (1, 2, 3):
        quarantine.add(request(token))
    assert [quarantine.holds(request(token)) for token in (1, 2, 3)] == [False, True, True]
    now[0] = 10.0
    assert not quarantine.holds(request(3))
    assert len(quarantine) == 1


def test_a_trial_knows_whether_it_is_for_a_hang() -> None:
    probation = Probation()
    assert not probation.is_for_hang
    probation.record_death([1, 2], Cause.HANG)
    assert probation.is_for_hang
    assert probation.record_death([2], Cause.HANG) == 2
    probation.clear(2)
    assert probation.is_for_hang
    probation.clear(1)
    assert not probation.is_for_hang
    probation.record_death([3, 4], Cause.FAULT)
    assert not probation.is_for_hang
