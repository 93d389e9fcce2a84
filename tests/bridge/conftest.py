"""What the tests of both carriers share: requests for the echoing engine, and what must come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from nllbd.bridge.protocol import EngineClient, EngineConfig
from nllbd.sched.sequence import FinishReason, SearchParams, SequenceOutcome, SequenceRequest

TARGET = 9


class Kit:
    """`POISON` is the token that the scripts below react to."""

    POISON = 77_777

    @staticmethod
    def config(script: str = "", **changes: int) -> EngineConfig:
        return EngineConfig(model_path="", runner=f"fake:{script}" if script else "fake", **changes)

    @staticmethod
    def request(engine: EngineClient, *tokens: int, timeout_s: float = 60.0, num_beams: int = 1) -> SequenceRequest:
        params = SearchParams(num_beams=num_beams)
        return SequenceRequest(engine.next_seq_id(), (8, *tokens, 2), TARGET, params, time.monotonic() + timeout_s)

    @classmethod
    def requests(cls, engine: EngineClient, count: int, length: int = 12) -> list[SequenceRequest]:
        """Different ones, of different lengths."""
        return [cls.request(engine, *range(100 + n, 100 + n + length + n % length)) for n in range(count)]

    @staticmethod
    def is_echo(asked: SequenceRequest, got: SequenceOutcome) -> bool:
        """The very answer that an engine without faults gives."""
        return (
            got.seq_id == asked.seq_id
            and got.reason is FinishReason.STOP
            and [hypothesis.token_ids for hypothesis in got.hypotheses] == [(TARGET, *asked.source_ids[1:-1], 2)]
        )

    @staticmethod
    async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
        """Wait for a condition that the loop's own work brings about."""
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, "the condition never came true"
            await asyncio.sleep(0.005)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit
