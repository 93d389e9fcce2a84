"""The supervised engine process, with a real process and the echoing runner: faults delay answers, they lose none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from blockbuster import blockbuster_ctx

from nllbd.bridge.child import Limits
from nllbd.bridge.policy import RestartPolicy
from nllbd.bridge.process import ProcessEngine
from nllbd.bridge.protocol import EngineConfig, EngineState
from nllbd.errors import CheckpointError, ConfigError, InternalError
from nllbd.sched.sequence import FinishReason, Priority

ROOT = Path(__file__).parents[2]
QUICK = Limits(heartbeat_s=0.1, stopped_s=0.3, silent_s=60.0, step_s=60.0)


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Any blocking call of ours on the event loop's thread raises, and so fails the test."""
    with blockbuster_ctx("nllbd"):
        yield


@asynccontextmanager
async def running(config: EngineConfig, **options: Any) -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine(config, **{"limits": QUICK, **options})
    await engine.start()
    try:
        await engine.wait_ready()
        yield engine
    finally:
        await engine.stop()


def pid_of(engine: ProcessEngine) -> int:
    assert engine.info is not None
    return engine.info.pid


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_three_faults_in_a_row_under_load_fail_nobody(kit: Any, fault: signal.Signals) -> None:
    async with running(kit.config("step_ms=3")) as engine:
        asked = kit.requests(engine, 300)
        futures = engine.submit(asked)
        for restart in range(3):
            victim = pid_of(engine)
            await kit.until(lambda: engine.stats.num_running > 0 and engine.state is EngineState.READY)
            os.kill(victim, fault)
            await kit.until(lambda victim=victim: pid_of(engine) != victim and engine.state is EngineState.READY)
            assert engine.num_restarts == restart + 1
        assert not all(future.done() for future in futures), "the load was over before the last fault"
        outcomes = await asyncio.gather(*futures)
    assert all(map(kit.is_echo, asked, outcomes))


async def test_a_look_inside_while_it_works_and_when_there_is_nobody(kit: Any) -> None:
    async with running(kit.config("step_ms=5")) as engine:
        idle = await engine.inspect(check=True)
        assert idle is not None
        assert (idle.clients, idle.integrity) == ((), "")
        futures = engine.submit(kit.requests(engine, 100))
        await kit.until(lambda: engine.stats.num_running > 0)
        busy = await engine.inspect(check=True)
        assert busy is not None
        assert busy.integrity == ""
        assert sum(row.num_running + row.num_waiting for row in busy.clients) > 0
        assert busy.last_steps
        os.kill(pid_of(engine), signal.SIGKILL)
        await kit.until(lambda: engine.state is not EngineState.READY)
        assert await engine.inspect() is None
        await asyncio.gather(*futures)
        counted = engine.stats
        assert sum(counted.step_counts) == counted.steps
    assert await engine.inspect() is None


async def test_kills_fail_nobody_even_when_one_is_alone(kit: Any) -> None:
    async with running(kit.config("step_ms=20")) as engine:
        asked = kit.request(engine, *range(100, 160))
        (future,) = engine.submit([asked])
        for restart in range(3):
            await kit.until(lambda: engine.stats.num_running == 1)
            os.kill(pid_of(engine), signal.SIGKILL)
            await kit.until(lambda n=restart: engine.num_restarts > n and engine.state is EngineState.READY)
        assert kit.is_echo(asked, await future)


@pytest.mark.parametrize("fault", ["die_on", "fatal_on"])
async def test_a_poison_input_among_64_fails_alone(kit: Any, fault: str) -> None:
    async with running(kit.config(f"{fault}={kit.POISON},step_ms=1")) as engine:
        asked = kit.requests(engine, 63)
        poison = kit.request(engine, 5, kit.POISON, 6)
        batch = [*asked[:40], poison, *asked[40:]]
        outcomes = await asyncio.gather(*engine.submit(batch))
        assert outcomes.pop(40).reason is FinishReason.FAILED
        assert all(map(kit.is_echo, asked, outcomes))
        restarts = engine.num_restarts
        (again,) = await asyncio.gather(*engine.submit([kit.request(engine, 5, kit.POISON, 6)]))
        assert again.reason is FinishReason.FAILED
        assert "before" in again.message
        assert engine.num_restarts == restarts, "a known killer was tried again"
        assert engine.healthy


async def test_the_same_poison_from_two_callers_fails_both_and_nobody_else(kit: Any) -> None:
    async with running(kit.config(f"fatal_on={kit.POISON}")) as engine:
        innocent = kit.requests(engine, 5)
        batch = [kit.request(engine, kit.POISON), *innocent, kit.request(engine, kit.POISON)]
        first, *middle, last = await asyncio.gather(*engine.submit(batch))
        assert (first.reason, last.reason) == (FinishReason.FAILED, FinishReason.FAILED)
        assert all(map(kit.is_echo, innocent, middle))


async def test_a_hanging_input_fails_alone(kit: Any) -> None:
    limits = Limits(heartbeat_s=0.05, step_s=0.4)
    async with running(kit.config(f"hang_on={kit.POISON}"), limits=limits) as engine:
        asked = kit.requests(engine, 3)
        *outcomes, hung = await asyncio.gather(*engine.submit([*asked, kit.request(engine, kit.POISON)]))
        assert hung.reason is FinishReason.FAILED
        assert all(map(kit.is_echo, asked, outcomes))


async def test_a_hanging_input_among_24_takes_nobody_s_deadline(kit: Any) -> None:
    """`step_s` is what a slow model may take; the pace of this one tells a hang long before."""
    limits = Limits(heartbeat_s=0.05, step_s=60.0, step_floor_s=0.8)
    async with running(kit.config(f"step_ms=2,hang_on={kit.POISON}"), limits=limits) as engine:
        asked = kit.requests(engine, 24)
        batch = [*asked[:12], kit.request(engine, 5, kit.POISON, 6), *asked[12:]]
        outcomes = await asyncio.wait_for(asyncio.gather(*engine.submit(batch)), 50)
        assert outcomes.pop(12).reason is FinishReason.FAILED
        assert all(map(kit.is_echo, asked, outcomes))


async def test_slow_steps_are_no_hang(kit: Any) -> None:
    limits = Limits(heartbeat_s=0.02, step_s=60.0, step_floor_s=0.05)
    async with running(kit.config("step_ms=60,token_us=4000"), limits=limits) as engine:
        first = kit.request(engine, 5)
        assert kit.is_echo(first, await engine.submit([first])[0])
        asked = kit.requests(engine, 20)  # one step encodes them all, as long as twenty decoding steps take
        assert all(map(kit.is_echo, asked, await asyncio.gather(*engine.submit(asked))))
        assert engine.num_restarts == 0


async def test_deadlines_pass_while_the_engine_is_frozen(kit: Any) -> None:
    async with running(kit.config(), limits=Limits(stopped_s=60.0)) as engine:
        os.kill(pid_of(engine), signal.SIGSTOP)
        futures = engine.submit([kit.request(engine, 5, timeout_s=0.1), kit.request(engine, 6, timeout_s=0.2)])
        outcomes = await asyncio.wait_for(asyncio.gather(*futures), 10)
        assert {outcome.reason for outcome in outcomes} == {FinishReason.DEADLINE}
        os.kill(pid_of(engine), signal.SIGCONT)
        after = kit.request(engine, 7)
        assert kit.is_echo(after, await engine.submit([after])[0])
        assert engine.num_restarts == 0


async def test_a_raised_deadline_is_kept_and_an_expired_one_is_not_revived(kit: Any) -> None:
    async with running(kit.config("step_ms=20")) as engine:
        asked = kit.request(engine, *range(100, 120), timeout_s=0.1)
        (future,) = engine.submit([asked])
        engine.update(asked.seq_id, Priority.INTERACTIVE, time.monotonic() + 60)
        engine.update(12345, Priority.BULK, 0.0)
        assert kit.is_echo(asked, await future)


async def test_abort_resolves_at_once_and_frees_the_engine(kit: Any) -> None:
    async with running(kit.config("step_ms=5")) as engine:
        asked = kit.requests(engine, 200, length=400)
        futures = engine.submit(asked)
        await kit.until(lambda: engine.stats.num_running > 0)
        engine.abort([item.seq_id for item in asked])
        assert {future.result().reason for future in futures} == {FinishReason.ABORTED}
        last = kit.request(engine, 5)
        assert kit.is_echo(last, await engine.submit([last])[0])
        await kit.until(lambda: engine.stats.num_running == 0 and engine.stats.used_blocks == 0)


async def test_a_cancelled_future_is_an_abort(kit: Any) -> None:
    async with running(kit.config("step_ms=5")) as engine:
        (future,) = engine.submit([kit.request(engine, *range(100, 600))])
        await kit.until(lambda: engine.stats.num_running == 1)
        future.cancel()
        await kit.until(lambda: engine.stats.num_running == 0)


async def test_more_than_may_wait_is_refused_whole(kit: Any) -> None:
    async with running(kit.config("step_ms=5", max_waiting_segments=10)) as engine:
        kept = engine.submit(kit.requests(engine, 8))
        refused = engine.submit(kit.requests(engine, 3))
        assert {future.result().reason for future in refused} == {FinishReason.OVERLOADED}
        assert {outcome.reason for outcome in await asyncio.gather(*kept)} == {FinishReason.STOP}


async def test_a_child_that_does_not_read_never_blocks_the_loop_nor_loses_order(kit: Any) -> None:
    async with running(kit.config(max_num_lanes=512), limits=Limits(stopped_s=60.0)) as engine:
        os.kill(pid_of(engine), signal.SIGSTOP)
        asked = kit.requests(engine, 6000, length=30)
        before = time.monotonic()
        futures = engine.submit(asked)
        await asyncio.sleep(0)
        stats = engine.stats
        assert time.monotonic() - before < 5.0
        assert stats.num_waiting == 6000
        assert stats.waiting_tokens == sum(len(item.source_ids) for item in asked)
        os.kill(pid_of(engine), signal.SIGCONT)
        assert all(map(kit.is_echo, asked, await asyncio.gather(*futures)))


async def test_what_cannot_be_sent_fails_alone(kit: Any) -> None:
    async with running(kit.config()) as engine:
        good, bad = kit.request(engine, 5), kit.request(engine, 2**70)
        fine, failed = await asyncio.gather(*engine.submit([good, bad]))
        assert kit.is_echo(good, fine)
        assert failed.reason is FinishReason.FAILED


async def test_stop_aborts_what_is_unfinished_and_leaves_no_process(kit: Any) -> None:
    async with running(kit.config("step_ms=50")) as engine:
        pid = pid_of(engine)
        futures = engine.submit(kit.requests(engine, 5))
        await engine.stop()
        assert {future.result().reason for future in futures} == {FinishReason.ABORTED}
        assert engine.state is EngineState.STOPPED
        assert not psutil.pid_exists(pid)
        (late,) = engine.submit([kit.request(engine, 5)])
        assert late.result().reason is FinishReason.FAILED


async def test_idle_kills_are_survived_and_counters_go_on(kit: Any) -> None:
    async with running(kit.config()) as engine:
        await asyncio.gather(*engine.submit(kit.requests(engine, 5)))
        await kit.until(lambda: engine.stats.steps > 0)
        steps = engine.stats.steps
        victim = pid_of(engine)
        os.kill(victim, signal.SIGKILL)
        await kit.until(lambda: engine.state is EngineState.RESTARTING)
        waited = kit.request(engine, 5)
        (future,) = engine.submit([waited])
        assert not future.done()
        assert kit.is_echo(waited, await future)
        assert engine.stats.steps >= steps
        assert pid_of(engine) != victim


async def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    engine = ProcessEngine(EngineConfig(model_path=str(tmp_path)))
    await engine.start()
    waiting = engine.submit([])
    with pytest.raises(CheckpointError, match=r"config\.json"):
        await engine.wait_ready()
    assert waiting == []
    assert engine.state is EngineState.FAILED
    assert not engine.healthy
    await engine.stop()


async def test_a_setting_that_the_engine_refuses_is_a_config_error() -> None:
    engine = ProcessEngine(EngineConfig(model_path="", runner="fake:wings=2"))
    await engine.start()
    with pytest.raises(ConfigError, match="wings"):
        await engine.wait_ready()
    await engine.stop()


async def test_an_engine_that_never_starts_fails_with_its_last_words(
    kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = ProcessEngine(kit.config(), policy=RestartPolicy(backoff_s=0.01, max_start_failures=3))
    await engine.start()
    (future,) = engine.submit([kit.request(engine, 5)])
    with pytest.raises(InternalError, match="no such luck"):
        await engine.wait_ready()
    assert (await future).reason is FinishReason.FAILED
    assert engine.num_restarts == 2
    await engine.stop()


async def test_a_failed_engine_that_comes_back_serves_again(
    kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = RestartPolicy(backoff_s=0.01, max_start_failures=2, failed_retry_s=0.01)
    async with running(kit.config(), policy=policy) as engine:
        broken = tmp_path / "sitecustomize.py"
        broken.write_text("import sys; sys.exit('broken for now')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        os.kill(pid_of(engine), signal.SIGKILL)
        await kit.until(lambda: engine.state is EngineState.FAILED)
        assert not engine.healthy
        assert engine.submit([kit.request(engine, 5)])[0].result().reason is FinishReason.FAILED
        broken.unlink()
        await kit.until(lambda: engine.state is EngineState.READY)
        assert engine.healthy
        asked = kit.request(engine, 6)
        assert kit.is_echo(asked, await engine.submit([asked])[0])


async def test_an_engine_that_fails_on_everything_becomes_unhealthy(kit: Any) -> None:
    policy = RestartPolicy(max_fruitless=4)
    async with running(kit.config(f"fatal_on={kit.POISON}"), policy=policy) as engine:
        for other in range(2):
            assert engine.healthy
            (outcome,) = await asyncio.gather(*engine.submit([kit.request(engine, other + 5, kit.POISON)]))
            assert outcome.reason is FinishReason.FAILED
        assert not engine.healthy
        await asyncio.gather(*engine.submit([kit.request(engine, 5)]))
        assert engine.healthy


async def test_signals_of_the_process_group_are_the_parents_business(kit: Any) -> None:
    async with running(kit.config()) as engine:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid_of(engine), number)
        asked = kit.request(engine, 5)
        assert kit.is_echo(asked, await engine.submit([asked])[0])
        assert engine.num_restarts == 0


PARENT = """
import asyncio, sys
from nllbd.bridge.process import ProcessEngine
from nllbd.bridge.protocol import EngineConfig
from nllbd.sched.sequence import SearchParams, SequenceRequest

async def main():
    engine = ProcessEngine(EngineConfig(model_path="", runner="fake:hang_on=77"))
    await engine.start()
    info = await engine.wait_ready()
    engine.submit([SequenceRequest(1, (8, 77, 2), 9, SearchParams(num_beams=1), float("inf"))])
    while engine._child.in_step != (1,):
        await asyncio.sleep(0.01)
    assert "torch" not in sys.modules
    print(info.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_orphan_survives_the_parent_not_even_a_hanging_one() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_an_engine_that_lives_but_does_not_step_is_no_healthy_one(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats, it is between two steps, nothing of it can be blamed; the work never reaches it."""
    limits = Limits(heartbeat_s=0.05, step_s=0.2, silent_s=60.0)
    async with running(kit.config(), limits=limits) as engine:
        (done,) = engine.submit([kit.request(engine, 40, 41)])
        await done
        await asyncio.sleep(0.5)
        assert engine.healthy, "idle is not stuck"
        child = engine._child
        assert child is not None
        monkeypatch.setattr(type(child), "send", lambda self, work: None)
        (lost,) = engine.submit([kit.request(engine, 42)])
        assert engine.healthy, "it has its time"
        await kit.until(lambda: not engine.healthy, within_s=5.0)
        assert not lost.done()
        engine.abort([engine.next_seq_id() - 1])
        assert engine.healthy, "nobody waits for anything"
