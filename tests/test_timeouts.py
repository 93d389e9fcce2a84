"""Time limits: they end what lasts, let pass what does not, and never swallow somebody else's cancellation."""

from __future__ import annotations

import asyncio

import pytest

from nllbd.timeouts import TimeLimit


async def test_what_is_done_in_time_is_let_alone() -> None:
    with TimeLimit(30):
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_lasts_is_ended() -> None:
    with pytest.raises(TimeoutError), TimeLimit(0.001):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # the task goes on as if nothing had been


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        with TimeLimit(30):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_are_a_cancellation() -> None:
    async def work() -> None:
        with TimeLimit(0) as limit:
            try:
                await asyncio.Event().wait()
            finally:
                limit._task.cancel()  # somebody else, in the same turn

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), TimeLimit(30):
        raise ValueError("mine")


async def test_the_inner_of_two_limits_ends_only_its_own() -> None:
    with TimeLimit(30):
        with pytest.raises(TimeoutError), TimeLimit(0):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


def test_it_needs_a_task() -> None:
    with pytest.raises(RuntimeError), TimeLimit(1):
        pass
