"""The audit log as the daemon writes it: recorded at once in memory, in the database a moment later, bounded.

Failed authentications come in floods: of one address the first in a minute is recorded by itself, the others as one
event with their number; of more than `MAX_ADDRESSES` addresses only the sum. Knows no database.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from nllbd.errors import NllbdError, StoreUnavailable
from nllbd.store.names import clean_name
from nllbd.store.records import AuditEvent

MAX_EVENTS = 10_000
MAX_ADDRESSES = 100
WINDOW_S = 60.0
_CHUNK = 500
FAILED_AUTHENTICATION = "authentication.failed"


class AuditSink(Protocol):
    """The part of the store that is written here."""

    async def add_audit(self, events: Sequence[AuditEvent], batch_id: str | None = None) -> bool: ...


class AuditLog:
    """Events of one daemon, called `actor` when it acts by itself. One event loop.

    Attributes:
        num_dropped: events that no longer fitted in memory, or that the database refused.
    """

    def __init__(self, actor: str = "daemon", clock: Callable[[], float] = time.monotonic) -> None:
        self._actor = actor
        self._clock = clock
        self._events: deque[AuditEvent] = deque()
        self._batch: tuple[str, list[AuditEvent]] | None = None
        self._flushing = asyncio.Lock()
        self._window_ends = -1.0
        self._failures: dict[str, int] = {}
        self._other_failures = 0
        self.num_dropped = 0

    def record(self, action: str, *, actor: str = "", subject: str = "", **details: str) -> None:
        """Note that something happened, e.g. `token.issued`. No secrets, no texts. Never waits."""
        if len(self._events) >= MAX_EVENTS:
            self.num_dropped += 1
            return
        self._events.append(
            AuditEvent(
                datetime.now(UTC),
                clean_name(actor or self._actor),
                action,
                clean_name(subject),
                {name: clean_name(value) for name, value in details.items()},
            )
        )

    def failed_authentication(self, address: str, reason: str) -> None:
        """Note that somebody came with credentials that are not good. `reason`: one of a few words of ours."""
        self._end_window()
        if address in self._failures:
            self._failures[address] += 1
        elif len(self._failures) < MAX_ADDRESSES:
            self._failures[address] = 0
            self.record(FAILED_AUTHENTICATION, actor=address, reason=reason)
        else:
            self._other_failures += 1

    async def flush(self, store: AuditSink) -> None:
        """Bring what was recorded into the database. Raises StoreUnavailable; nothing is lost then."""
        self._end_window()
        async with self._flushing:
            while batch := self._next_batch():
                try:
                    await store.add_audit(batch[1], batch[0])
                except StoreUnavailable:
                    raise
                except NllbdError:
                    self.num_dropped += len(batch[1])
                self._batch = None

    def _next_batch(self) -> tuple[str, list[AuditEvent]] | None:
        """The batch to send: the one whose fate is unknown first, under the id that it had."""
        if self._batch is None and self._events:
            events = [self._events.popleft() for _ in range(min(_CHUNK, len(self._events)))]
            self._batch = uuid.uuid4().hex, events
        return self._batch

    def _end_window(self) -> None:
        """Sum up the failures of a minute that is over."""
        if self._clock() < self._window_ends:
            return
        self._window_ends = self._clock() + WINDOW_S
        failures, others = self._failures, self._other_failures
        self._failures, self._other_failures = {}, 0
        for address, count in failures.items():
            if count:
                self.record(FAILED_AUTHENTICATION, actor=address, more=str(count))
        if others:
            self.record(FAILED_AUTHENTICATION, actor="other addresses", more=str(others))
