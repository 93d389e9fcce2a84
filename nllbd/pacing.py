"""Small pieces of processor work on the event loop, never too many in a row.

A step of the engine may end a hundred sequences at once, and each then wants a millisecond for its guards and its
answer: together they would keep everybody else waiting. So only so many go on in each turn of the loop, fewer when the
last turns were long. Knows nothing of what it runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


_FIRST_LIMIT = 8
_MIN_LIMIT, _MAX_LIMIT = 2, 256


class Pacer:
    """Runs calls at once while the turn has room, else in later turns, in order. One event loop.

    `budget_s` is for the calls themselves; a turn with all that its callers go on to do should take twice that.
    """

    def __init__(self, budget_s: float = 0.005, clock: Callable[[], float] = time.perf_counter) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._limit = _FIRST_LIMIT  # calls a turn
        self._ran = 0
        self._spent_s = 0.0
        self._turn_began = 0.0
        self._is_scheduled = False
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns, or raises. It must not await and should take far less than the budget."""
        if not self._queue and self._has_room:
            self._schedule()
            return self._timed(call)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((call, future))
        self._schedule()
        return await future

    @property
    def _has_room(self) -> bool:
        return self._ran < self._limit and self._spent_s < self._budget_s

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._turn_began = self._clock()
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """A new turn of the loop: learn from the last one, and let the next ones in."""
        self._is_scheduled = False
        if self._ran:
            self._adapt(self._clock() - self._turn_began)
        self._ran, self._spent_s = 0, 0.0
        self._turn_began = self._clock()
        while self._queue and self._has_room:
            call, future = self._queue.popleft()
            if not future.done():  # else its caller was cancelled
                self._settle(call, future)
        if self._queue or self._ran:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _adapt(self, turn_s: float) -> None:
        is_long = turn_s > 2 * self._budget_s
        self._limit = max(_MIN_LIMIT, self._limit // 2) if is_long else min(_MAX_LIMIT, self._limit + 1)

    def _settle(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            future.set_result(self._timed(call))
        except Exception as error:
            future.set_exception(error)

    def _timed(self, call: Callable[[], T]) -> T:
        began = self._clock()
        self._ran += 1
        try:
            return call()
        finally:
            self._spent_s += self._clock() - began
