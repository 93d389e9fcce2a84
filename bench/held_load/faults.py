"""What breaks, one thing after the other: the engine, Redis, PostgreSQL; and more load than can be borne."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from bench.held_load.rude import Crowd
from bench.held_load.services import Postgres, Redis
from bench.held_load.texts import FAULTS
from bench.held_load.world import CAPACITY_PER_S, World

OVERLOAD_FACTOR = 10


@dataclass
class Breakage:
    """Breaks things in turn. `log` says what and when, in seconds from the start."""

    world: World
    crowd: Crowd
    began: float = field(default_factory=time.monotonic)
    log: list[tuple[float, str]] = field(default_factory=list)

    def ways(self, overload_s: float, away_s: float) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """All that is done in a round, in this order; what takes longest comes last."""
        found: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("engine: kill -9", partial(self._signal_engine, signal.SIGKILL)),
            ("engine: SIGSTOP", partial(self._signal_engine, signal.SIGSTOP)),
        ]
        poison = sorted(self.crowd.poison, key=lambda fault: fault == "hang_on")
        found += [(f"engine: {FAULTS[fault]}", partial(self.crowd.send_poison, fault)) for fault in poison]
        hang = found[-1:] if poison else []
        found = found[: len(found) - len(hang)]
        for service in self.world.services:
            found.append((f"{service.name}: kill -9, away for {away_s:g} s", partial(self._kill, service, away_s)))
            found.append((f"{service.name}: SIGSTOP for {away_s:g} s", partial(self._freeze, service, away_s)))
        burst = (f"{OVERLOAD_FACTOR} times the load for {overload_s:g} s", partial(self._overload, overload_s))
        return [*found, burst, *hang]

    async def go_on(self, every_s: float, rounds_until: float, overload_s: float, away_s: float) -> None:
        """Round after round until `rounds_until` seconds have gone; pauses of `every_s` between."""
        while True:
            for name, way in self.ways(overload_s, away_s):
                if time.monotonic() - self.began > rounds_until:
                    return
                self.log.append((round(time.monotonic() - self.began, 1), name))
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    await way()
                await asyncio.sleep(every_s)

    async def _overload(self, seconds: float) -> None:
        await self.crowd.overload(OVERLOAD_FACTOR * CAPACITY_PER_S, seconds)

    async def _signal_engine(self, number: signal.Signals) -> None:
        seen = await asyncio.to_thread(self.world.engine)
        if pid := seen.get("pid"):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _kill(self, service: Redis | Postgres, away_s: float) -> None:
        await asyncio.to_thread(service.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(service.start)

    async def _freeze(self, service: Redis | Postgres, away_s: float) -> None:
        service.freeze()
        try:
            await asyncio.sleep(away_s)
        finally:
            service.thaw()
