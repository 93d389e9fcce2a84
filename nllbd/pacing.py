"""Small pieces of processor work on the event loop, never too many in a row.

A step of the engine may end a hundred sequences at once, and each then wants a millisecond for its guards: together
they would keep everybody else waiting. So they share a budget for each turn of the loop. Knows nothing of what it runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Pacer:
    """Runs calls at once while the turn's budget lasts, then in later turns, in order. One event loop."""

    def __init__(self, budget_s: float = 0.005, clock: Callable[[], float] = time.perf_counter) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._spent_s = 0.0
        self._is_scheduled = False
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns, or raises. It must not await and should take far less than the budget."""
        if not self._queue and self._spent_s < self._budget_s:
            self._schedule()
            return self._timed(call)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((call, future))
        self._schedule()
        return await future

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """A new turn of the loop, a new budget."""
        self._spent_s = 0.0
        self._is_scheduled = False
        while self._queue and self._spent_s < self._budget_s:
            call, future = self._queue.popleft()
            if not future.done():  # else its caller was cancelled
                self._settle(call, future)
        if self._queue or self._spent_s:
            self._schedule()

    def _settle(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            future.set_result(self._timed(call))
        except Exception as error:
            future.set_exception(error)

    def _timed(self, call: Callable[[], T]) -> T:
        began = self._clock()
        try:
            return call()
        finally:
            self._spent_s += self._clock() - began
