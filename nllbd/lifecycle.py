"""The daemon's state as one small object: who may be served, how many requests are in flight, when the last has ended.

STARTING → READY → DRAINING → STOPPED, never backwards. The daemon moves it; HTTP reads it and counts requests in and
out. Knows nothing of sockets, signals, HTTP or the engine. Belongs to one event loop; not thread-safe.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from nllbd.errors import Draining, NotReady


class LifecycleState(enum.StrEnum):
    """What the daemon as a whole is doing. The engine has states of its own (`bridge.protocol.EngineState`)."""

    STARTING = "starting"  # sockets may be bound, the engine loads
    READY = "ready"  # serves
    DRAINING = "draining"  # finishes what is in flight, takes nothing new
    STOPPED = "stopped"  # serves nothing any more


_ORDER = tuple(LifecycleState)


class Lifecycle:
    """State, reason of failure and in-flight count of one daemon.

    Attributes:
        failed_reason: why the engine could not be started, for `/health`; None while nothing is wrong.
        has_successor: whoever holds our listening socket starts the next daemon on it, and no other host need be there
            to take what we refuse: while draining, kept-alive connections get one more answer each, then close.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = LifecycleState.STARTING
        self._in_flight = 0
        self._begun = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.started_at = clock()
        self.failed_reason: str | None = None
        self.has_successor = False
        self._counted = _Counted(self)

    @property
    def state(self) -> LifecycleState:
        return self._state

    @property
    def is_ready(self) -> bool:
        return self._state is LifecycleState.READY

    @property
    def is_draining(self) -> bool:
        """Takes no new requests any more (DRAINING or STOPPED): answer with `Connection: close`."""
        return self._state in (LifecycleState.DRAINING, LifecycleState.STOPPED)

    @property
    def num_in_flight(self) -> int:
        return self._in_flight

    @property
    def num_begun(self) -> int:
        """Requests counted in since the start."""
        return self._begun

    @property
    def uptime_s(self) -> float:
        return self._clock() - self.started_at

    def advance(self, state: LifecycleState) -> bool:
        """Move forward to `state`; False (and no change) if already there or beyond."""
        if _ORDER.index(state) <= _ORDER.index(self._state):
            return False
        self._state = state
        return True

    def fail(self, reason: str) -> None:
        """Remember why the daemon cannot serve; the state stays what it is."""
        self.failed_reason = reason

    def check_admits(self, *, is_first_on_connection: bool = False) -> None:
        """Raise the typed error that a new request gets now: NotReady, Draining, or nothing.

        The first request of a connection that was accepted before the drain began is served: its client could not
        have known better, and may not be able to tell a connection that was closed on it from a failed request.
        """
        if self._state is LifecycleState.STARTING:
            raise NotReady(self.failed_reason or "the model is still loading; try again shortly", retry_after_s=1.0)
        if self._state is LifecycleState.DRAINING and is_first_on_connection:
            return
        if self.is_draining:
            raise Draining("this daemon is shutting down; send the request again, to another host or its successor")

    def begin_request(self) -> None:
        """Count a request in, whatever the state (see `check_admits` for whether to serve it)."""
        self._in_flight += 1
        self._begun += 1
        self._idle.clear()

    def end_request(self) -> None:
        """Count a request out, once its response is on its way. Every `begin_request` needs exactly one."""
        if self._in_flight <= 0:
            raise RuntimeError("end_request without begin_request")
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def request(self) -> AbstractContextManager[None]:
        """`begin_request` and `end_request` around a block."""
        return self._counted

    async def wait_idle(self) -> None:
        """Return when no request is in flight."""
        await self._idle.wait()


class _Counted(AbstractContextManager[None]):
    """Counts a request in and out. Holds nothing of its own, so that all requests share one."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def __enter__(self) -> None:
        self._lifecycle.begin_request()

    def __exit__(self, *_: object) -> None:
        self._lifecycle.end_request()
