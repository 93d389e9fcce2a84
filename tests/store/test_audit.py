from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from nllbd.errors import InternalError, StoreUnavailable
from nllbd.store import audit
from nllbd.store.audit import AuditLog
from nllbd.store.records import AuditEvent
from nllbd.store.store import Store


@dataclass
class Sink:
    events: list[AuditEvent] = field(default_factory=list)
    seen: set[str | None] = field(default_factory=set)
    error: Exception | None = None
    loses_answers: bool = False

    async def add_audit(self, events: Sequence[AuditEvent], batch_id: str | None = None) -> bool:
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        if batch_id not in self.seen:
            self.seen.add(batch_id)
            self.events += events
        if self.loses_answers:
            self.loses_answers = False
            raise StoreUnavailable("the answer was lost")
        return True


async def test_events_reach_a_real_database_whatever_is_in_them(store: Store) -> None:
    log = AuditLog("daemon:host:1")
    log.record("token.issued", actor="key:\0\ud800", subject="x" * 400, name="\0")
    log.record("daemon.started", version="1")
    await log.flush(store)
    started, issued = await store.list_audit()
    assert (started.actor, started.action, started.details) == ("daemon:host:1", "daemon.started", {"version": "1"})
    assert issued.action == "token.issued"
    assert len(issued.subject) == 200


async def test_an_outage_keeps_events_and_a_lost_answer_does_not_double_them() -> None:
    log, sink = AuditLog(), Sink(loses_answers=True)
    log.record("one")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await log.flush(sink)
        sink.error = StoreUnavailable("away")
        log.record("two")
    sink.error = None
    await log.flush(sink)
    assert [event.action for event in sink.events] == ["one", "two", "two"]


async def test_memory_is_bounded_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_EVENTS", 3)
    log, sink = AuditLog(), Sink()
    for number in range(5):
        log.record(str(number))
    await log.flush(sink)
    assert [event.action for event in sink.events] == ["0", "1", "2"]
    assert log.num_dropped == 2


async def test_what_the_database_refuses_does_not_block_the_rest() -> None:
    log, sink = AuditLog(), Sink(error=InternalError("refused"))
    log.record("one")
    await log.flush(sink)
    sink.error = None
    log.record("two")
    await log.flush(sink)
    assert ([event.action for event in sink.events], log.num_dropped) == (["two"], 1)


async def test_a_flood_of_failures_is_a_few_events_that_add_up() -> None:
    now = 0.0
    log, sink = AuditLog(clock=lambda: now), Sink()
    for _ in range(1000):
        for host in range(3):
            log.failed_authentication(f"10.0.0.{host}", "unknown key")
    for number in range(5000):
        log.failed_authentication(f"fd00::{number:x}", "unknown key")
    await log.flush(sink)
    assert len(sink.events) == audit.MAX_ADDRESSES
    assert sink.events[0].actor == "10.0.0.0"
    assert sink.events[0].details == {"reason": "unknown key"}
    now = audit.WINDOW_S + 1
    await log.flush(sink)
    more = sum(int(event.details.get("more", 1)) for event in sink.events)
    assert more == 8000
    assert len(sink.events) == audit.MAX_ADDRESSES + 3 + 1
