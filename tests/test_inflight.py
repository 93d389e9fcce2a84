"""Single flight: reference counting, joined claims, and what happens in the moments between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.inflight import InflightTable, SegmentKey, Waiter
from nllbd.sched.sequence import FinishReason, Priority, SearchParams, SequenceOutcome, SequenceRequest

KEY = SegmentKey((5, 6, 2), 9, SearchParams())


class ScriptedEngine:
    """Only what the table uses; outcomes come when the test says so."""

    def __init__(self) -> None:
        self.requests: dict[int, SequenceRequest] = {}
        self.futures: dict[int, asyncio.Future[SequenceOutcome]] = {}
        self.updates: list[tuple[int, Priority, float]] = []
        self.aborted: list[int] = []

    def next_seq_id(self) -> int:
        return len(self.requests) + 1

    def submit(self, requests: Iterable[SequenceRequest]) -> list[asyncio.Future[SequenceOutcome]]:
        made = []
        for request in requests:
            self.requests[request.seq_id] = request
            self.futures[request.seq_id] = asyncio.get_running_loop().create_future()
            made.append(self.futures[request.seq_id])
        return made

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        self.updates.append((seq_id, priority, deadline))

    def abort(self, seq_ids: Iterable[int]) -> None:
        for seq_id in seq_ids:
            self.aborted.append(seq_id)
            self.finish(seq_id, FinishReason.ABORTED)

    def finish(self, seq_id: int, reason: FinishReason = FinishReason.STOP) -> None:
        if not self.futures[seq_id].done():
            self.futures[seq_id].set_result(SequenceOutcome(seq_id, reason))


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def make_table(engine: ScriptedEngine, now: float = 0.0) -> InflightTable:
    return InflightTable(engine, clock=lambda: now)  # type: ignore[arg-type]


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_identical_segments_share_one_sequence(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    tasks = [asyncio.create_task(table.get(KEY, Waiter(10.0))) for _ in range(3)]
    await settle()
    assert len(engine.requests) == 1
    engine.finish(1)
    assert {outcome.seq_id for outcome in await asyncio.gather(*tasks)} == {1}
    assert len(table) == 0


async def test_joining_takes_the_highest_class_and_the_latest_deadline(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    waiters = [Waiter(10.0, Priority.BULK), Waiter(5.0, Priority.INTERACTIVE), Waiter(30.0, Priority.BULK)]
    tasks = [asyncio.create_task(table.get(KEY, waiter)) for waiter in waiters]
    await settle()
    assert engine.updates == [(1, Priority.INTERACTIVE, 10.0), (1, Priority.INTERACTIVE, 30.0)]
    engine.finish(1)
    await asyncio.gather(*tasks)


async def test_a_joiner_with_lesser_claims_changes_nothing(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    tasks = [asyncio.create_task(table.get(KEY, Waiter(deadline, Priority.BULK))) for deadline in (10.0, 3.0)]
    await settle()
    assert engine.updates == []
    engine.finish(1)
    await asyncio.gather(*tasks)


async def test_aborted_only_when_the_last_waiter_leaves(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    first, second = (asyncio.create_task(table.get(KEY, Waiter(10.0))) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert engine.aborted == []
    second.cancel()
    await settle()
    assert engine.aborted == [1]
    assert len(table) == 0


async def test_who_asks_after_an_abort_gets_a_new_sequence(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    task = asyncio.create_task(table.get(KEY, Waiter(10.0)))
    await settle()
    task.cancel()
    await settle()
    again = asyncio.create_task(table.get(KEY, Waiter(10.0)))
    await settle()
    assert list(engine.requests) == [1, 2]
    engine.finish(2)
    assert (await again).reason is FinishReason.STOP


async def test_a_sequence_dropped_for_an_earlier_deadline_is_sent_again(engine: ScriptedEngine) -> None:
    table = make_table(engine, now=2.0)
    early = asyncio.create_task(table.get(KEY, Waiter(1.0)))
    late = asyncio.create_task(table.get(KEY, Waiter(9.0)))
    await settle()
    engine.finish(1, FinishReason.DEADLINE)
    assert (await early).reason is FinishReason.DEADLINE
    await settle()
    assert engine.requests[2].deadline == 9.0
    engine.finish(2)
    assert (await late).reason is FinishReason.STOP


@pytest.mark.parametrize("reason", [FinishReason.DEADLINE, FinishReason.ABORTED, FinishReason.FAILED])
async def test_what_has_just_ended_is_not_joined(engine: ScriptedEngine, reason: FinishReason) -> None:
    """Nor waited for in a loop that never lets the event loop turn."""
    table = make_table(engine)
    first = asyncio.create_task(table.get(KEY, Waiter(0.0)))
    await settle()
    engine.finish(1, reason)
    assert not table.holds(KEY)
    second = asyncio.create_task(table.get(KEY, Waiter(9.0)))
    await settle()
    assert list(engine.requests) == [1, 2]
    engine.finish(2)
    assert (await first).reason is reason
    assert (await second).reason is FinishReason.STOP


async def test_other_params_are_other_work(engine: ScriptedEngine) -> None:
    table = make_table(engine)
    other = SegmentKey(KEY.source_ids, KEY.target_id, SearchParams(num_beams=1))
    tasks = [asyncio.create_task(table.get(key, Waiter(10.0))) for key in (KEY, other)]
    await settle()
    assert len(engine.requests) == 2
    for seq_id in (1, 2):
        engine.finish(seq_id)
    await asyncio.gather(*tasks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["get", "cancel", "finish"]), st.integers(0, 2)), max_size=40))
def test_every_waiter_ends_once_and_nothing_is_left(actions: list[tuple[str, int]]) -> None:
    """Whatever the order of joining, leaving and finishing: no sequence runs for nobody, no waiter is forgotten."""

    async def drive() -> None:
        engine = ScriptedEngine()
        table = make_table(engine)
        waiting: list[tuple[int, asyncio.Task[SequenceOutcome]]] = []
        for action, number in actions:
            key = SegmentKey((number, 2), 9, SearchParams())
            mine = [task for owner, task in waiting if owner == number and not task.done()]
            if action == "get":
                waiting.append((number, asyncio.create_task(table.get(key, Waiter(10.0)))))
            elif action == "cancel" and mine:
                mine[0].cancel()
            elif action == "finish":
                for seq_id, request in engine.requests.items():
                    if request.source_ids == key.source_ids:
                        engine.finish(seq_id)
            await settle()
            wanted = {owner for owner, task in waiting if not task.done()}
            running = {engine.requests[i].source_ids[0] for i, future in engine.futures.items() if not future.done()}
            assert running == wanted
            assert len(table) == len(wanted)
        for seq_id in engine.futures:
            engine.finish(seq_id)
        await settle()
        assert all(task.done() for _, task in waiting)
        assert len(table) == 0

    asyncio.run(drive())
