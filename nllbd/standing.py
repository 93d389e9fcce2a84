"""What the service manager hears of the daemon: that it needs time, that it lives, what it is busy with.

The watchdog is fed by a task of the event loop, and only while the engine is healthy: a loop that no longer turns, or
an engine that its own supervisor cannot bring back, is for the service manager to restart. Knows no HTTP, no settings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from nllbd.bridge.protocol import EngineState, EngineStats
from nllbd.lifecycle import Lifecycle, LifecycleState
from nllbd.systemd import Notifier

_EXTEND_EVERY_S = 5.0
_TELL_EVERY_S = 2.0


class WatchedEngine(Protocol):
    """What is asked of an engine here."""

    @property
    def state(self) -> EngineState: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def healthy(self) -> bool: ...


class Standing:
    """Reports on one daemon. `serving` is what it serves and where, once it does.

    Attributes:
        complaint: what an operator should know besides, such as a reload that was refused; empty if nothing.
    """

    def __init__(
        self,
        notifier: Notifier,
        engine: WatchedEngine,
        lifecycle: Lifecycle,
        model: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._engine = engine
        self._lifecycle = lifecycle
        self._model = model
        self._clock = clock
        self._told = ""
        self._measured = (clock(), 0)
        self._rate = 0.0
        self.serving = ""
        self.complaint = ""

    async def ask_for_time(self) -> None:
        """Loading a large model may outlast the manager's patience with a start."""
        while True:
            self._notifier.extend_timeout(3 * _EXTEND_EVERY_S)
            await asyncio.sleep(_EXTEND_EVERY_S)

    async def feed_watchdog(self) -> None:
        """Only this loop's turning and a healthy engine keep the manager from restarting us."""
        interval_s = self._notifier.watchdog_s
        while interval_s is not None:
            if self._engine.healthy:
                self._notifier.watchdog()
            await asyncio.sleep(interval_s / 3)

    async def tell_load(self) -> None:
        """Keep the status line up to date. What has not changed is not said again."""
        while self._notifier.enabled:
            self._measure()
            self.tell()
            await asyncio.sleep(_TELL_EVERY_S)

    def tell(self) -> None:
        """Say now how we are, if that is news."""
        if (line := self._line()) != self._told:
            self._told = line
            self._notifier.status(line)

    def ready(self) -> None:
        """We serve, from now on or again."""
        self._told = self._line()
        self._notifier.ready(self._told)

    def _line(self) -> str:
        return "; ".join(filter(None, (self._describe(), self.complaint)))

    def _describe(self) -> str:
        match self._lifecycle.state:
            case LifecycleState.STARTING:
                return f"loading {self._model}, {self._lifecycle.uptime_s:.0f} s so far"
            case LifecycleState.READY:
                return f"{self.serving}: {self._load()}"
            case _:
                return f"draining: {_count(self._lifecycle.num_in_flight, 'request')} in flight"

    def _load(self) -> str:
        in_flight, stats = self._lifecycle.num_in_flight, self._engine.stats
        if self._engine.state is not EngineState.READY:
            return f"the engine is {self._engine.state}, {_count(in_flight, 'request')} waiting for it"
        if not (self._rate or in_flight or stats.num_running or stats.num_waiting):
            return "idle"
        return (
            f"{self._rate:.1f} requests/s, {in_flight} in flight, {_count(stats.num_running, 'sentence')} decoding, "
            f"{stats.num_waiting} waiting, {stats.tokens_per_s if stats.num_running else 0:.0f} tokens/s"
        )

    def _measure(self) -> None:
        """How many requests a second have come since this was called last."""
        now, begun = self._clock(), self._lifecycle.num_begun
        since, before = self._measured
        self._rate = (begun - before) / (now - since) if now > since else 0.0
        self._measured = (now, begun)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
