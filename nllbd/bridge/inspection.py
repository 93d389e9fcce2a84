"""Questions to the engine about itself, and who waits for the answers. One event loop.

Knows neither process nor thread: the carriers put `take`'s question into the next work they send, and hand the answers
back. An engine that is away, or busy with a long step, answers nobody in time, and that is an answer, too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from nllbd.bridge.codec import Inspect, Inspection
from nllbd.bridge.protocol import EngineSnapshot

INSPECT_S = 5.0


@dataclass(slots=True, eq=False)
class _Question:
    token: int
    check: bool
    future: asyncio.Future[EngineSnapshot]
    num_waiters: int = 0


class Inspections:
    """`send_soon` is called when there is a question to take. Who asks before it was taken shares it."""

    def __init__(self, send_soon: Callable[[], None]) -> None:
        self._send_soon = send_soon
        self._tokens = itertools.count(1)
        self._unsent: _Question | None = None
        self._sent: dict[int, _Question] = {}

    async def ask(self, check: bool, timeout_s: float = INSPECT_S) -> EngineSnapshot | None:
        """What the engine says of itself; None if it does not within `timeout_s`."""
        question = self._unsent
        if question is None:
            question = _Question(next(self._tokens), check, asyncio.get_running_loop().create_future())
            self._unsent = question
        question.check |= check
        question.num_waiters += 1
        self._send_soon()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(question.future)
        except TimeoutError:
            return None
        finally:
            self._forget(question)

    def take(self) -> Inspect | None:
        """The question to send now."""
        question, self._unsent = self._unsent, None
        if question is None:
            return None
        self._sent[question.token] = question
        return Inspect(question.token, question.check)

    def answer(self, inspection: Inspection) -> None:
        """The engine's word; one that nobody waits for any more is dropped."""
        question = self._sent.pop(inspection.token, None)
        if question is not None and not question.future.done():
            question.future.set_result(inspection.snapshot)

    def _forget(self, question: _Question) -> None:
        question.num_waiters -= 1
        if question.num_waiters:
            return
        self._sent.pop(question.token, None)
        if self._unsent is question:
            self._unsent = None
