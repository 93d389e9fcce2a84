"""Work on texts: short before long, nobody let in who would wait too long, nothing done for who has left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd import textwork
from nllbd.errors import InvalidValue, Overloaded
from nllbd.textwork import TextWork, WorkRate


@pytest.fixture
def work() -> Iterator[TextWork]:
    made = TextWork()
    yield made
    made.close()


class Gate:
    """A call that keeps the thread until it is opened; what ran afterwards, in order."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()
        self.order: list[str] = []

    def hold(self) -> None:
        self._entered.set()
        assert self._opened.wait(30)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 30)

    def open(self) -> None:
        self._opened.set()

    def note(self, name: str) -> str:
        self.order.append(name)
        return name


async def occupied(work: TextWork) -> tuple[Gate, asyncio.Task[Any]]:
    """The thread is busy with one short text."""
    gate = Gate()
    task = asyncio.create_task(work.run("x", [1], [gate.hold]))
    await gate.wait_entered()
    return gate, task


async def test_results_stand_in_order(work: TextWork) -> None:
    assert await work.run("x", [3, 1, 2], [lambda: "a", lambda: "b", lambda: "c"]) == ["a", "b", "c"]
    assert await work.run("x", [], []) == []


async def test_a_short_request_overtakes_long_ones_that_came_before(work: TextWork) -> None:
    gate, first = await occupied(work)
    long = [
        asyncio.create_task(work.run("x", [2000] * 50, [partial(gate.note, f"long {n}")] * 50, 60.0)) for n in range(3)
    ]
    await asyncio.sleep(0)
    short = asyncio.create_task(work.run("x", [20], [partial(gate.note, "short")]))
    await asyncio.sleep(0)
    gate.open()
    assert await short == ["short"]
    await asyncio.gather(first, *long)
    assert gate.order.index("short") < 3, "no long one has had two texts before it"
    thirds = [gate.order[:75].count(f"long {n}") for n in range(3)]
    assert max(thirds) - min(thirds) <= 2, "long ones take turns"


async def test_who_would_wait_too_long_is_refused_at_once(work: TextWork) -> None:
    gate, first = await occupied(work)
    seconds = textwork._FIRST_RATE
    long = asyncio.create_task(work.run("x", [int(1.6 * seconds)], [lambda: None]))
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        await work.run("x", [int(2 * seconds)], [lambda: None])
    assert time.monotonic() - began < 1.0
    assert caught.value.retry_after_s == 2.0
    patient = asyncio.create_task(work.run("x", [int(2 * seconds)], [lambda: "patient"], 10.0))
    short = asyncio.create_task(work.run("x", [100], [lambda: "short"]))  # waits for a short share of each only
    await asyncio.sleep(0)
    gate.open()
    assert await patient == ["patient"]
    assert await short == ["short"]
    await asyncio.gather(first, long)
    assert await work.run("x", [int(100 * seconds)], [lambda: "alone"]) == ["alone"]  # nobody is there to wait for


async def test_nothing_is_done_for_who_has_left(work: TextWork, eventually: Callable[..., Any]) -> None:
    gate, first = await occupied(work)
    gone = asyncio.create_task(work.run("x", [2000] * 50, [partial(gate.note, "gone")] * 50))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    gate.open()
    await first
    assert await work.run("x", [int(100 * textwork._FIRST_RATE)], [lambda: 1]) == [1]  # nor does it count as waiting
    assert gate.order == []


async def test_the_first_failure_is_raised_and_ends_the_visit(work: TextWork) -> None:
    gate, first = await occupied(work)

    def fail() -> None:
        raise InvalidValue("text[1]")

    calls = [partial(gate.note, "0"), fail, *[partial(gate.note, "later")] * 500]
    failing = asyncio.create_task(work.run("x", [2000] * 502, calls, 60.0))
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(InvalidValue, match=r"text\[1\]"):
        await failing
    assert len(gate.order) < 100
    await first


async def test_a_closed_one_answers_nobody_and_hangs_nobody() -> None:
    work = TextWork()
    gate, first = await occupied(work)
    waiting = asyncio.create_task(work.run("x", [1], [lambda: 1]))
    await asyncio.sleep(0)
    work.close()
    gate.open()
    late = asyncio.create_task(work.run("x", [1], [lambda: 1]))
    for task in (waiting, late):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 30)
    await asyncio.gather(first, return_exceptions=True)


def test_a_failure_leaves_nothing_that_needs_the_loop() -> None:
    work = TextWork()

    def fail() -> None:
        raise InvalidValue("text[0]")

    async def fail_early() -> None:
        with pytest.raises(InvalidValue):
            await work.run("x", [2000] * 500, [fail, *[lambda: None] * 499], 60.0)

    asyncio.run(fail_early())
    work.close()


def test_a_rate_follows_what_is_seen_and_a_loaded_model_does_not_spoil_it() -> None:
    rate = WorkRate()
    rate.record(20, 2.0)  # a model was loaded
    assert rate.cost_s(1_000_000) < 4
    for _ in range(10_000):
        rate.record(2000, 0.001)
    assert rate.cost_s(2_000_000) == pytest.approx(1.0, rel=0.2)
    for _ in range(100):
        rate.record(2000, 0.2)
    assert rate.cost_s(10_000) == pytest.approx(1.0, rel=0.2)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1e3)), max_size=50))
def test_a_rate_stays_a_rate(samples: list[tuple[int, float]]) -> None:
    rate = WorkRate()
    for characters, seconds in samples:
        rate.record(characters, seconds)
    assert 0 < rate.cost_s(1000) <= 1000 / textwork._MIN_RATE + 1e-3
