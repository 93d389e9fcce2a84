"""The daemon's state object: never backwards, exact in-flight count, typed refusals."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.errors import Draining, NotReady
from nllbd.lifecycle import Lifecycle, LifecycleState

ORDER = list(LifecycleState)


@given(st.lists(st.sampled_from(ORDER)))
def test_never_moves_backwards(moves: list[LifecycleState]) -> None:
    lifecycle = Lifecycle()
    highest = 0
    for state in moves:
        moved = lifecycle.advance(state)
        assert moved == (ORDER.index(state) > highest)
        highest = max(highest, ORDER.index(state))
        assert lifecycle.state is ORDER[highest]


def test_refuses_until_ready_and_when_draining() -> None:
    lifecycle = Lifecycle()
    with pytest.raises(NotReady, match="loading"):
        lifecycle.check_admits()
    lifecycle.fail("no such model")
    with pytest.raises(NotReady, match="no such model"):
        lifecycle.check_admits()
    lifecycle.advance(LifecycleState.READY)
    lifecycle.check_admits()
    lifecycle.advance(LifecycleState.DRAINING)
    with pytest.raises(Draining):
        lifecycle.check_admits()
    lifecycle.check_admits(is_first_on_connection=True)
    assert lifecycle.is_draining
    assert not lifecycle.is_ready
    lifecycle.advance(LifecycleState.STOPPED)
    with pytest.raises(Draining):
        lifecycle.check_admits(is_first_on_connection=True)


async def test_wait_idle_returns_when_the_last_request_ends() -> None:
    lifecycle = Lifecycle()
    await asyncio.wait_for(lifecycle.wait_idle(), 1)
    lifecycle.begin_request()
    with pytest.raises(ValueError, match="inner"), lifecycle.request():  # noqa: PT012 - the body is the point
        assert lifecycle.num_in_flight == 2
        raise ValueError("inner")
    waiter = asyncio.create_task(lifecycle.wait_idle())
    await asyncio.sleep(0)
    assert not waiter.done()
    lifecycle.end_request()
    await asyncio.wait_for(waiter, 1)
    with pytest.raises(RuntimeError, match="without"):
        lifecycle.end_request()


def test_uptime_follows_the_clock() -> None:
    now = [10.0]
    lifecycle = Lifecycle(clock=lambda: now[0])
    now[0] = 12.5
    assert lifecycle.uptime_s == 2.5
