from __future__ import annotations

from collections.abc import Callable

import pytest

from nllbd.sched.probation import CLEAN_STEPS, LaneLimit, Probation
from nllbd.sched.sequence import Sequence, SequenceStatus

Make = Callable[..., Sequence]


def open_group(probation: Probation) -> list[Sequence]:
    """Open the next group and start all of it."""
    assert probation.open_next_group()
    group = []
    while (seq := probation.peek()) is not None:
        probation.start(seq)
        seq.status = SequenceStatus.RUNNING
        group.append(seq)
    return group


def stop(group: list[Sequence]) -> None:
    for seq in group:
        seq.status = SequenceStatus.WAITING


@pytest.mark.parametrize("guilty", [{0}, {63}, {20}, {3, 4}, set(range(0, 64, 9)), set()])
def test_exactly_the_guilty_are_found(make_sequence: Make, guilty: set[int]) -> None:
    suspects = [make_sequence(number) for number in range(64)]
    for seq in suspects:
        seq.suspect_length = seq.length
    probation, convicted, innocent, rounds = Probation(), set(), set(), 0
    probation.accuse(suspects, num_lanes=64)
    while probation.open_next_group():
        rounds += 1
        group = open_group(probation)
        probation.check_integrity()
        if not guilty & {seq.seq_id for seq in group}:
            for seq in group:
                seq.length += 1
            probation.clear_innocent()
            innocent |= {seq.seq_id for seq in group}
            assert not probation.is_group_open
            continue
        stop(group)
        if len(group) == 1:
            probation.convict(group[0])
            convicted.add(group[0].seq_id)
        else:
            probation.accuse(group, num_lanes=len(group))
    assert convicted == guilty
    assert innocent == set(range(64)) - guilty
    assert rounds <= 2 + 2 * 6 * max(1, len(guilty))
    assert probation.close() == (0 if guilty else 64)
    assert not probation.is_active


def test_members_that_have_not_started_stay_suspects(make_sequence: Make) -> None:
    probation = Probation()
    probation.accuse([make_sequence(number) for number in range(8)], num_lanes=8)
    assert probation.open_next_group()
    started = [probation.peek()]
    probation.start(started[0])
    probation.convict(started[0])
    assert sorted(seq.seq_id for seq in probation.waiting()) == [1, 2, 3, 4, 5, 6, 7]


def test_preempted_members_come_back_and_ended_ones_do_not(make_sequence: Make) -> None:
    probation = Probation()
    members = [make_sequence(number) for number in range(4)]
    probation.accuse(members, num_lanes=4)
    assert not probation.take_back(make_sequence(99))
    group = open_group(probation)
    assert probation.take_back(group[1])
    assert probation.peek() is group[1]
    assert probation.discard(group[1])
    assert not probation.discard(group[0]), "it ran"
    assert not probation.is_group_open
    assert probation.holds(members[3])
    assert probation.discard(members[3])
    assert not probation.discard(members[3])


def test_integrity_looks_at_statuses(make_sequence: Make) -> None:
    probation = Probation()
    members = [make_sequence(number) for number in range(2)]
    probation.accuse(members, num_lanes=2)
    probation.check_integrity()
    members[0].status = SequenceStatus.RUNNING
    with pytest.raises(AssertionError, match="WAITING"):
        probation.check_integrity()


def test_a_lowered_lane_limit_recovers_after_clean_steps() -> None:
    limit = LaneLimit(64)
    limit.lower(40)
    assert limit.value == 20
    limit.lower(1)
    assert limit.value == 1
    for expected in (1, 2, 4, 8, 16, 32):
        assert limit.value == expected
        for _ in range(CLEAN_STEPS):
            limit.record_clean_step()
    assert limit.value == 64
