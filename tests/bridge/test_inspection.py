"""Questions to the engine: each asker gets the answer, or learns in time that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nllbd.bridge.codec import Inspection
from nllbd.bridge.inspection import Inspections
from nllbd.bridge.protocol import EngineSnapshot

SNAPSHOT = EngineSnapshot((), 0, 0, 8, (), "")
Eventually = Callable[..., Awaitable[None]]


class Wire:
    """Counts the calls for a question."""

    def __init__(self) -> None:
        self.calls = 0
        self.inspections = Inspections(self._called)

    def _called(self) -> None:
        self.calls += 1


async def test_an_answer_reaches_who_asked() -> None:
    wire = Wire()
    asked = asyncio.create_task(wire.inspections.ask(True))
    await asyncio.sleep(0)
    question = wire.inspections.take()
    assert question is not None
    assert (wire.calls, question.check) == (1, True)
    assert wire.inspections.take() is None
    wire.inspections.answer(Inspection(question.token, SNAPSHOT))
    assert await asked is SNAPSHOT


async def test_who_asks_together_shares_one_question() -> None:
    wire = Wire()
    asked = [asyncio.create_task(wire.inspections.ask(check)) for check in (False, True, False)]
    await asyncio.sleep(0)
    asked[0].cancel()  # who leaves takes nothing from the others
    await asyncio.sleep(0)
    question = wire.inspections.take()
    assert question is not None
    assert question.check
    wire.inspections.answer(Inspection(question.token, SNAPSHOT))
    assert await asyncio.gather(*asked[1:]) == [SNAPSHOT, SNAPSHOT]


async def test_silence_is_an_answer() -> None:
    wire = Wire()
    assert await wire.inspections.ask(False, timeout_s=0.01) is None
    assert wire.inspections.take() is None  # nobody wants to know any more
    asked = asyncio.create_task(wire.inspections.ask(False, timeout_s=0.05))
    await asyncio.sleep(0)
    question = wire.inspections.take()
    assert question is not None
    assert await asked is None
    wire.inspections.answer(Inspection(question.token, SNAPSHOT))  # too late, and harmless


@pytest.mark.parametrize("token", [0, 99])
async def test_an_answer_to_nothing_is_dropped(token: int) -> None:
    Wire().inspections.answer(Inspection(token, SNAPSHOT))
