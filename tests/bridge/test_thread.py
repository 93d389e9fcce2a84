"""The engine in a thread: the same promises as the process, minus the supervision."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nllbd.bridge.protocol import EngineConfig, EngineState
from nllbd.bridge.thread import StepEngine, ThreadEngine
from nllbd.engine.build import build_engine
from nllbd.errors import CheckpointError, InternalError
from nllbd.sched.sequence import FinishReason, Priority


@asynccontextmanager
async def running(config: EngineConfig, **options: Any) -> AsyncIterator[ThreadEngine]:
    engine = ThreadEngine(config, **options)
    await engine.start()
    try:
        await engine.wait_ready()
        yield engine
    finally:
        await engine.stop()


async def test_translates_and_ends_its_thread(kit: Any) -> None:
    async with running(kit.config()) as engine:
        asked = kit.requests(engine, 50)
        outcomes = await asyncio.gather(*engine.submit(asked))
        assert all(map(kit.is_echo, asked, outcomes))
        assert engine.state is EngineState.READY
        assert engine.healthy
        assert engine.info is not None
        assert engine.stats.steps > 0
    assert engine.state is EngineState.STOPPED
    assert not any(thread.name == "engine" for thread in threading.enumerate())
    assert engine.submit([kit.request(engine, 5)])[0].result().reason is FinishReason.FAILED


async def test_a_look_inside(kit: Any) -> None:
    async with running(kit.config("step_ms=5")) as engine:
        futures = engine.submit(kit.requests(engine, 20))
        await kit.until(lambda: engine.stats.num_running > 0)
        seen = await engine.inspect(check=True)
        assert seen is not None
        assert seen.integrity == ""
        await asyncio.gather(*futures)
    assert await engine.inspect() is None


async def test_sleeps_when_there_is_nothing_to_do(kit: Any) -> None:
    calls: list[bool] = []

    def counting(config: EngineConfig) -> StepEngine:
        engine = build_engine(config)
        step = engine.step
        engine.step = lambda: (calls.append(True), step())[1]  # type: ignore[method-assign]
        return engine

    async with running(kit.config(), factory=counting) as engine:
        await asyncio.gather(*engine.submit([kit.request(engine, 5, 6)]))
        await kit.until(lambda: engine.stats.num_running == 0)
        before = len(calls)
        await asyncio.gather(*engine.submit([kit.request(engine, 5, 6)]))
        assert len(calls) <= 2 * before, "it steps without work"


async def test_abort_update_and_deadline(kit: Any) -> None:
    async with running(kit.config("step_ms=20")) as engine:
        dropped = kit.request(engine, *range(100, 300))
        late = kit.request(engine, *range(100, 300), timeout_s=0.1)
        raised = kit.request(engine, 5, 6, timeout_s=0.1)
        futures = engine.submit([dropped, late, raised])
        engine.update(raised.seq_id, Priority.INTERACTIVE, time.monotonic() + 60)
        engine.abort([dropped.seq_id, 999])
        assert futures[0].result().reason is FinishReason.ABORTED
        assert (await futures[1]).reason is FinishReason.DEADLINE
        assert kit.is_echo(raised, await futures[2])
        await kit.until(lambda: engine.stats.num_running == 0)


async def test_what_arrives_while_loading_waits(kit: Any) -> None:
    may_build = threading.Event()

    def slow(config: EngineConfig) -> StepEngine:
        may_build.wait(10)
        return build_engine(config)

    engine = ThreadEngine(kit.config(), factory=slow)
    with pytest.raises(RuntimeError, match="start"):
        await engine.wait_ready()
    await engine.start()
    asked = kit.request(engine, 5)
    (future,) = engine.submit([asked])
    assert engine.state is EngineState.LOADING
    may_build.set()
    assert kit.is_echo(asked, await future)
    await engine.stop()


@pytest.mark.parametrize(
    ("raised", "expected"), [(CheckpointError("no folder"), CheckpointError), (OSError("odd"), InternalError)]
)
async def test_an_engine_that_cannot_be_built(kit: Any, raised: Exception, expected: type[Exception]) -> None:
    def broken(config: EngineConfig) -> StepEngine:
        raise raised

    engine = ThreadEngine(kit.config(), factory=broken)
    await engine.start()
    (future,) = engine.submit([kit.request(engine, 5)])
    with pytest.raises(expected, match=str(raised)):
        await engine.wait_ready()
    assert (await future).reason is FinishReason.FAILED
    assert engine.state is EngineState.FAILED
    await engine.stop()


async def test_a_fatal_fault_fails_everything_with_its_reason(kit: Any) -> None:
    async with running(kit.config(f"fatal_on={kit.POISON}")) as engine:
        outcomes = await asyncio.gather(*engine.submit([kit.request(engine, kit.POISON), kit.request(engine, 5, 6, 7)]))
        assert {outcome.reason for outcome in outcomes} == {FinishReason.FAILED}
        assert "scripted" in outcomes[0].message
        assert not engine.healthy


async def test_stop_while_a_step_is_under_way_aborts(kit: Any) -> None:
    async with running(kit.config("step_ms=50")) as engine:
        futures = engine.submit(kit.requests(engine, 3))
        await kit.until(lambda: engine.stats.num_running > 0)
    assert {future.result().reason for future in futures} == {FinishReason.ABORTED}
