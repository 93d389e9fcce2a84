"""What a service manager hears, over a real datagram socket, of an engine and a lifecycle that the test moves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nllbd.bridge.protocol import EngineState, EngineStats
from nllbd.lifecycle import Lifecycle, LifecycleState
from nllbd.standing import Standing
from nllbd.systemd import Notifier


@dataclass
class Engine:
    state: EngineState = EngineState.READY
    stats: EngineStats = EngineStats()  # noqa: RUF009 (frozen)
    healthy: bool = True


@dataclass
class Scene:
    """A standing daemon and the ear of its manager."""

    standing: Standing
    engine: Engine
    lifecycle: Lifecycle
    ear: socket.socket

    async def hear(self) -> str:
        return (await asyncio.to_thread(self.ear.recv, 4096)).decode()

    def hears_nothing(self) -> bool:
        self.ear.setblocking(False)
        try:
            return not self.ear.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.ear.settimeout(10)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(10)
        engine, lifecycle = Engine(), Lifecycle(clock=lambda: 7.0)
        notifier = Notifier(str(tmp_path / "notify"), watchdog_s=0.03)
        yield Scene(Standing(notifier, engine, lifecycle, "demo"), engine, lifecycle, ear)
        notifier.close()


async def test_the_status_line_tells_the_load(scene: Scene) -> None:
    standing, lifecycle = scene.standing, scene.lifecycle
    standing.tell()
    assert await scene.hear() == "STATUS=loading demo, 0 s so far"
    lifecycle.advance(LifecycleState.READY)
    standing.serving = "serving demo on http://127.0.0.1:8000"
    standing.ready()
    assert await scene.hear() == "READY=1\nSTATUS=serving demo on http://127.0.0.1:8000: idle"
    lifecycle.begin_request()
    scene.engine.stats = EngineStats(num_running=3, num_waiting=9, tokens_per_s=811.4)
    standing.tell()
    assert (await scene.hear()).endswith(": 0.0 requests/s, 1 in flight, 3 sentences decoding, 9 waiting, 811 tokens/s")
    scene.engine.state = EngineState.RESTARTING
    standing.tell()
    assert (await scene.hear()).endswith(": the engine is restarting, 1 request waiting for it")
    lifecycle.advance(LifecycleState.DRAINING)
    standing.tell()
    assert await scene.hear() == "STATUS=draining: 1 request in flight"


async def test_the_rate_is_that_of_late(scene: Scene) -> None:
    now = 100.0
    standing = Standing(scene.standing._notifier, scene.engine, scene.lifecycle, "demo", clock=lambda: now)
    scene.lifecycle.advance(LifecycleState.READY)
    for _ in range(6):
        with scene.lifecycle.request():
            pass
    now += 4.0
    telling = asyncio.create_task(standing.tell_load())
    assert ": 1.5 requests/s, 0 in flight, 0 sentences decoding" in await scene.hear()
    telling.cancel()


async def test_what_has_not_changed_is_not_said_again(scene: Scene) -> None:
    scene.standing.tell()
    await scene.hear()
    scene.standing.tell()
    assert scene.hears_nothing()
    scene.standing.complaint = "settings not reloaded: max_texts"
    scene.standing.tell()
    assert await scene.hear() == "STATUS=loading demo, 0 s so far; settings not reloaded: max_texts"


async def test_the_watchdog_starves_while_the_engine_is_ill(scene: Scene) -> None:
    feeding = asyncio.create_task(scene.standing.feed_watchdog())
    assert await scene.hear() == "WATCHDOG=1"
    scene.engine.healthy = False
    await asyncio.sleep(0.03)  # two turns of the task: what was on its way has come
    while not scene.hears_nothing():
        pass
    await asyncio.sleep(0.1)
    assert scene.hears_nothing()
    scene.engine.healthy = True
    assert await scene.hear() == "WATCHDOG=1"
    feeding.cancel()


async def test_asks_for_time_at_once(scene: Scene) -> None:
    asking = asyncio.create_task(scene.standing.ask_for_time())
    assert await scene.hear() == "EXTEND_TIMEOUT_USEC=15000000"
    asking.cancel()
