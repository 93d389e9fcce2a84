"""The one way to Redis: calls that are quick or fail, never slow; a circuit breaker; reconnection in the background.

Whoever calls must be able to do without: `RedisAway` is an everyday event and costs its callers milliseconds at most.
While Redis is away calls fail at once, and a probe of our own looks for it; no request ever pays for a connection.
Commands that are issued together travel together: what waits while a connection is busy goes out as one write.
Knows nothing of what is stored, and never repeats a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nllbd import log
from nllbd import metrics as m
from nllbd.breaker import Breaker
from nllbd.metrics import Metrics
from nllbd.redis_wire import (
    CONNECT_TIMEOUT_S,
    FAILURES,
    Argument,
    Command,
    RedisAway,
    RedisProblem,
    RedisRefused,
    describe,
    make_pool,
    round_trip,
)

__all__ = ["CALL_TIMEOUT_S", "Argument", "Command", "RedisAway", "RedisLink", "RedisProblem", "RedisRefused"]

#: How long a call waits for its reply: in a healthy network a reply takes one millisecond.
CALL_TIMEOUT_S = 0.025
_NUM_CONNECTIONS = 2
_MAX_BATCH_ARGUMENTS = 1024
_MAX_WAITING = 4096

logger = log.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    command: Command
    reply: asyncio.Future[Any]


class RedisLink:
    """A Redis server (or the master that Sentinels name), one event loop. `start` before use, `close` at the end.

    `name` is what it is used for, a metrics label. Replies are raw: bytes, int, list, None.
    """

    def __init__(
        self,
        url: str,
        name: str = "redis",
        metrics: Metrics | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        breaker: Breaker | None = None,
    ) -> None:
        self._pool = make_pool(url)
        self._name = name
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._breaker = breaker or Breaker()
        self._idle = [self._pool.make_connection() for _ in range(_NUM_CONNECTIONS)]
        self._connections = tuple(self._idle)
        self._calls: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._is_closed = False
        self._was_seen_away = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: Redis is away, and calls fail at once."""
        return self._breaker.is_open

    def start(self) -> None:
        """Begin to connect; returns at once. Until the first success calls fail."""
        self._look_for_it()

    async def close(self) -> None:
        """End all connections. What still waits for a reply fails."""
        self._is_closed = True
        self._breaker.fail()
        tasks = [*self._tasks, *([self._probe] if self._probe else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_waiting()
        await self._disconnect()

    async def wait_up(self, timeout_s: float) -> bool:
        """Whether Redis is reached within `timeout_s`: for diagnosis and tests; requests must not wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        return not self.is_open

    async def call(self, *command: Argument) -> Any:
        """The reply to one command. Raises RedisAway within the link's `timeout_s`, or RedisRefused."""
        (reply,) = await self.call_many([command])
        if isinstance(reply, RedisRefused):
            raise reply
        return reply

    async def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands, sent together; one that Redis refuses is a RedisRefused in its place.

        Raises RedisAway within the link's `timeout_s`. Whether a command was carried out is then not known.
        """
        if self.is_open or len(self._calls) + len(commands) > _MAX_WAITING:
            raise RedisAway("Redis is away" if self.is_open else "too many calls are waiting")
        loop = asyncio.get_running_loop()
        calls = [_Call(command, loop.create_future()) for command in commands]
        self._calls.extend(calls)
        self._send()
        try:
            async with asyncio.timeout(self._timeout_s):
                return [await call.reply for call in calls]
        except TimeoutError:
            raise RedisAway("no reply in time") from None
        finally:
            for call in calls:
                call.reply.cancel()  # what nobody waits for is not sent, and no failure is left unread

    def _send(self) -> None:
        if self._calls and self._idle and not self._is_closed:
            task = asyncio.create_task(self._work(self._idle.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, connection: Any) -> None:
        """Send what waits, a batch at a time, until nothing does."""
        try:
            while batch := self._next_batch():
                await self._exchange(connection, batch)
        finally:
            self._idle.append(connection)

    def _next_batch(self) -> list[_Call]:
        """As much as is done in a small part of a call's time; at least one."""
        batch: list[_Call] = []
        num_arguments = 0
        while self._calls and num_arguments < _MAX_BATCH_ARGUMENTS:
            call = self._calls.popleft()
            if not call.reply.done():
                batch.append(call)
                num_arguments += len(call.command)
        return batch

    async def _exchange(self, connection: Any, batch: list[_Call]) -> None:
        """One round trip. A connection that was left in the middle of one is closed: its next reply would be wrong."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                replies = await round_trip(connection, [call.command for call in batch])
        except FAILURES as error:
            await self._give_up(connection, batch, error)
        except BaseException:
            _settle_all(batch, RedisAway("the link is closed"))
            await connection.disconnect(nowait=True)
            raise
        else:
            self._breaker.succeed()
            self._record(m.REDIS_DURATION, time.monotonic() - began)
            for call, reply in zip(batch, replies, strict=True):
                if not call.reply.done():
                    call.reply.set_result(reply)

    async def _give_up(self, connection: Any, batch: list[_Call], error: Exception) -> None:
        is_late = isinstance(error, TimeoutError)
        (self._breaker.time_out if is_late else self._breaker.fail)()
        if self._metrics is not None:
            self._metrics.add(m.REDIS_ERRORS, link=self._name, kind="timeout" if is_late else "connection")
        _settle_all(batch, RedisAway("no reply in time" if is_late else "the connection was lost"))
        with contextlib.suppress(*FAILURES):
            await connection.disconnect(nowait=True)
        if self.is_open:
            self._fail_waiting()
            self._look_for_it("no reply in time" if is_late else describe(error))

    def _fail_waiting(self) -> None:
        _settle_all(self._calls, RedisAway("Redis is away"))
        self._calls.clear()

    # Looking for Redis

    def _look_for_it(self, reason: str | None = None) -> None:
        if self._is_closed or (self._probe is not None and not self._probe.done()):
            return
        if reason is not None:
            self._tell_away(reason)
        # A context of its own: what it logs is no request's doing.
        self._probe = asyncio.create_task(self._look(), context=contextvars.Context())

    async def _look(self) -> None:
        """Ask until every connection answers within a call's time."""
        while self.is_open:
            await asyncio.sleep(self._breaker.pause_s * random.uniform(0.8, 1.2))
            if len(self._idle) < len(self._connections):
                await asyncio.sleep(self._timeout_s)  # a last call still holds one, for no longer than that
                continue
            try:
                for connection in self._connections:
                    await self._ping(connection)
            except FAILURES as error:
                await self._disconnect()
                self._breaker.fail()
                self._tell_away(describe(error))
            else:
                self._tell_back()

    async def _ping(self, connection: Any) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
        async with asyncio.timeout(self._timeout_s):
            await round_trip(connection, [("PING",)])

    async def _disconnect(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)

    def _tell_away(self, reason: str) -> None:
        """One line when it goes, not one each probe."""
        self._up.clear()
        self._set_up(0)
        if not self._was_seen_away:
            self._was_seen_away = True
            logger.warning("Redis is away; doing without", link=self._name, reason=reason)

    def _tell_back(self) -> None:
        self._breaker.close()
        self._up.set()
        self._set_up(1)
        if self._was_seen_away:
            self._was_seen_away = False
            logger.info("Redis is back", link=self._name)

    def _set_up(self, value: int) -> None:
        if self._metrics is not None:
            self._metrics.set(m.REDIS_UP, value, link=self._name)

    def _record(self, spec: m.MetricSpec, value: float) -> None:
        if self._metrics is not None:
            self._metrics.observe(spec, value, link=self._name)


def _settle_all(calls: Sequence[_Call] | deque[_Call], error: RedisAway) -> None:
    for call in calls:
        if not call.reply.done():
            call.reply.set_exception(error)
            call.reply.exception()  # marks it as seen: its caller may have stopped waiting
