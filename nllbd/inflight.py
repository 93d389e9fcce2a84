"""Segments that are in the engine now. Identical ones share a sequence, which lives as long as anyone waits for it.

One event loop; nothing here blocks or awaits anything but the engine's futures. Knows no text: a segment is its ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from nllbd.bridge.protocol import EngineClient
from nllbd.sched.sequence import FinishReason, Priority, SearchParams, SequenceOutcome, SequenceRequest


class SegmentKey(msgspec.Struct, frozen=True):
    """What makes two segments the same work: the ids hold the source language, the params everything else.

    `tenant` keeps apart those who must not notice each other: whoever joins is served sooner, and could tell from it
    that somebody is having this very sentence translated.
    """

    source_ids: tuple[int, ...]
    target_id: int
    params: SearchParams
    tenant: str = ""


class Waiter(msgspec.Struct, frozen=True):
    """On whose behalf a segment is looked up. `deadline` is a `time.monotonic()` instant; `request_tokens` as in
    SequenceRequest.
    """

    deadline: float
    priority: Priority = Priority.INTERACTIVE
    client: str = ""
    request_id: str = ""
    request_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """One sequence in the engine and those who wait for it; its class is their highest, its deadline their latest."""

    seq_id: int
    future: asyncio.Future[SequenceOutcome]
    priority: Priority
    deadline: float
    waiting: list[asyncio.Future[SequenceOutcome]]


class InflightTable:
    """Single flight. An entry leaves when its outcome is there or its last waiter is gone.

    `on_asked` is told of each question whether it joined a sequence that was already there.
    """

    def __init__(
        self,
        engine: EngineClient,
        clock: Callable[[], float] = time.monotonic,
        on_asked: Callable[[bool], None] = lambda joined: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._on_asked = on_asked
        self._flights: dict[SegmentKey, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def holds(self, key: SegmentKey) -> bool:
        """Whether asking for `key` now would join a sequence that is already there."""
        return self._find(key) is not None

    async def get(self, key: SegmentKey, waiter: Waiter) -> SequenceOutcome:
        """The outcome of `key`, computed once however many ask. Cancelling this call leaves the sequence to the others.

        A sequence may still end by the deadline of an earlier waiter when the engine dropped it in the very moment
        that this one joined: then it is sent again.
        """
        flight = self._find(key)
        self._on_asked(flight is not None)
        while True:
            outcome = await self._wait(key, flight, waiter)
            if outcome.reason is not FinishReason.DEADLINE or self._clock() >= waiter.deadline:
                return outcome
            flight = self._find(key)

    async def _wait(self, key: SegmentKey, flight: _Flight | None, waiter: Waiter) -> SequenceOutcome:
        """A future of its own for each who waits, so that who is cancelled does not cancel the sequence."""
        if flight is None:
            flight = self._launch(key, waiter)
        else:
            self._raise_claims(flight, waiter)
        mine: asyncio.Future[SequenceOutcome] = asyncio.get_running_loop().create_future()
        flight.waiting.append(mine)
        try:
            return await mine
        except BaseException:
            self._leave(key, flight, mine)
            raise

    def _find(self, key: SegmentKey) -> _Flight | None:
        """The flight to join. One that has its outcome is none, though its entry goes only in the loop's next turn."""
        flight = self._flights.get(key)
        return None if flight is None or flight.future.done() else flight

    def _launch(self, key: SegmentKey, waiter: Waiter) -> _Flight:
        seq_id = self._engine.next_seq_id()
        request = SequenceRequest(
            seq_id,
            key.source_ids,
            key.target_id,
            key.params,
            waiter.deadline,
            waiter.priority,
            waiter.client,
            waiter.request_id,
            waiter.request_tokens,
        )
        (future,) = self._engine.submit((request,))
        flight = _Flight(seq_id, future, waiter.priority, waiter.deadline, [])
        self._flights[key] = flight
        future.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: SegmentKey, flight: _Flight) -> None:
        """The outcome is there: everybody's."""
        self._forget(key, flight)
        for waiting in flight.waiting:
            if not waiting.done():  # else who waited was cancelled just now
                waiting.set_result(flight.future.result())

    def _raise_claims(self, flight: _Flight, waiter: Waiter) -> None:
        priority = min(flight.priority, waiter.priority)
        deadline = max(flight.deadline, waiter.deadline)
        if (priority, deadline) != (flight.priority, flight.deadline):
            flight.priority, flight.deadline = priority, deadline
            self._engine.update(flight.seq_id, priority, deadline)

    def _leave(self, key: SegmentKey, flight: _Flight, mine: asyncio.Future[SequenceOutcome]) -> None:
        flight.waiting.remove(mine)
        if not flight.waiting and not flight.future.done():
            self._forget(key, flight)
            self._engine.abort((flight.seq_id,))

    def _forget(self, key: SegmentKey, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
