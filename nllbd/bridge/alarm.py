"""Sees that deadlines pass in time on the event loop's side, even when there is no engine that would mind them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from nllbd.bridge.ledger import Ledger


class DeadlineAlarm:
    """One timer for a whole ledger, set to its next deadline.

    `on_expired` gets the ids of expired sequences that the engine has and must be told of.
    """

    def __init__(self, ledger: Ledger, on_expired: Callable[[Sequence[int]], None]) -> None:
        self._ledger = ledger
        self._on_expired = on_expired
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def set(self) -> None:
        """To be called when a deadline may have become the next one."""
        due = self._ledger.next_deadline
        if due >= self._due:
            return
        self.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._ring)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _ring(self) -> None:
        self._timer, self._due = None, math.inf
        self._on_expired(self._ledger.expire(time.monotonic()))
        self.set()
