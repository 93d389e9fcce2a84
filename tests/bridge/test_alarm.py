"""The deadline alarm: rings for the next deadline, also when that was moved, and then for the one after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nllbd.bridge.alarm import DeadlineAlarm
from nllbd.bridge.ledger import Ledger
from nllbd.sched.sequence import FinishReason, Priority, SearchParams, SequenceRequest


def make(seq_id: int, wait_s: float) -> SequenceRequest:
    return SequenceRequest(seq_id, (8, 5, 2), 9, SearchParams(), time.monotonic() + wait_s)


async def test_rings_once_for_each_deadline_and_tells_what_the_engine_has(kit: Any) -> None:
    ledger, told = Ledger(100, 1000, lambda seq_id: None), []

    def note(seq_ids: Sequence[int]) -> None:
        told.extend(seq_ids)

    alarm = DeadlineAlarm(ledger, note)
    alarm.set()  # nothing to wait for: no harm
    futures = ledger.add([make(1, 0.05), make(2, 0.02), make(3, 60.0), make(4, 0.01)])
    ledger.take(100, only=(1,))
    alarm.set()
    ledger.update(4, Priority.BULK, time.monotonic() + 60.0)
    alarm.set()
    await asyncio.wait_for(asyncio.gather(*futures[:2]), 10)
    assert [future.result().reason for future in futures[:2]] == [FinishReason.DEADLINE] * 2
    await kit.until(lambda: told == [1])
    assert not futures[2].done()
    assert not futures[3].done()
    ledger.update(3, Priority.BULK, time.monotonic() + 0.01)
    alarm.set()
    await asyncio.wait_for(futures[2], 10)
    alarm.cancel()
    assert not futures[3].done()
