"""Pacing: everything runs, in order, and no turn of the loop is longer than its budget and one call."""

from __future__ import annotations

import asyncio

import pytest

from nllbd.pacing import Pacer


class Work:
    """Calls that each take one second of a scripted clock, and in which turn of the loop they ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turn = 0
        self.ran: list[tuple[int, int]] = []

    def clock(self) -> float:
        return self.now

    def call(self, number: int) -> int:
        self.now += 1.0
        self.ran.append((number, self.turn))
        return number

    async def count_turns(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1


async def test_all_run_in_order_a_budget_a_turn() -> None:
    work = Work()
    pacer = Pacer(budget_s=3.0, clock=work.clock)
    counter = asyncio.create_task(work.count_turns())
    results = await asyncio.gather(*(pacer.run(lambda n=n: work.call(n)) for n in range(20)))  # type: ignore[misc]
    counter.cancel()
    assert results == list(range(20))
    assert [number for number, _ in work.ran] == list(range(20))
    turns = [turn for _, turn in work.ran]
    assert max(turns.count(turn) for turn in set(turns)) <= 3
    assert len(set(turns)) >= 6


async def test_the_first_runs_at_once() -> None:
    work = Work()
    pacer = Pacer(budget_s=3.0, clock=work.clock)
    running = pacer.run(lambda: work.call(1))
    with pytest.raises(StopIteration) as stopped:
        running.send(None)
    assert stopped.value.value == 1


async def test_what_a_call_raises_is_raised_to_its_caller_alone() -> None:
    work = Work()
    pacer = Pacer(budget_s=1.0, clock=work.clock)

    def fail() -> int:
        work.now += 1.0
        raise ValueError("no")

    calls = [lambda: work.call(0), fail, lambda: work.call(2), fail]
    results = await asyncio.gather(*(pacer.run(call) for call in calls), return_exceptions=True)
    assert [type(result) for result in results] == [int, ValueError, int, ValueError]


async def test_a_cancelled_call_does_not_run() -> None:
    work = Work()
    pacer = Pacer(budget_s=1.0, clock=work.clock)
    tasks = [asyncio.create_task(pacer.run(lambda n=n: work.call(n))) for n in range(4)]  # type: ignore[misc]
    await asyncio.sleep(0)
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, _ in work.ran] == [0, 1, 3]
    assert isinstance(results[2], asyncio.CancelledError)


async def test_the_budget_is_new_after_a_quiet_turn() -> None:
    work = Work()
    pacer = Pacer(budget_s=1.0, clock=work.clock)
    for number in range(3):
        assert await pacer.run(lambda number=number: work.call(number)) == number  # type: ignore[misc]
    assert pacer._queue == type(pacer._queue)()


async def test_what_callers_go_on_to_do_counts_too() -> None:
    """Calls that cost nothing, whose callers then take a second each: the turns become as short as they should be."""
    work = Work()
    pacer = Pacer(budget_s=2.0, clock=work.clock)
    counter = asyncio.create_task(work.count_turns())

    async def caller(number: int) -> None:
        await pacer.run(lambda: None)
        work.call(number)

    await asyncio.gather(*(caller(number) for number in range(200)))
    counter.cancel()
    turns = [turn for _, turn in work.ran]
    lengths = [turns.count(turn) for turn in dict.fromkeys(turns)]
    assert [number for number, _ in work.ran] == list(range(200))
    assert max(lengths[4:]) <= 5  # seconds a turn; twice the budget is 4


async def test_short_turns_let_more_in() -> None:
    work = Work()
    pacer = Pacer(budget_s=1.0, clock=work.clock)
    counter = asyncio.create_task(work.count_turns())
    ran: list[int] = []
    await asyncio.gather(*(pacer.run(lambda: ran.append(work.turn)) for _ in range(2000)))
    counter.cancel()
    lengths = [ran.count(turn) for turn in dict.fromkeys(ran)]
    assert lengths[-2] > lengths[0]
