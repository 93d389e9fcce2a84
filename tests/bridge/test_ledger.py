"""Exactly one outcome for every accepted sequence, whatever is done to it in whatever order."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nllbd.bridge.ledger import Ledger
from nllbd.sched.sequence import FinishReason, Priority, SearchParams, SequenceOutcome, SequenceRequest


def make(seq_id: int, deadline: float = math.inf, priority: Priority = Priority.INTERACTIVE, num_tokens: int = 3):
    return SequenceRequest(seq_id, (5,) * num_tokens, 9, SearchParams(), deadline, priority)


def make_ledger(max_segments: int = 100, max_tokens: int = 1000) -> tuple[Ledger, list[int], list[int]]:
    cancelled: list[int] = []
    closed: list[int] = []
    return Ledger(max_segments, max_tokens, cancelled.append, closed.append), cancelled, closed


class Book(RuleBasedStateMachine):
    """A model beside the ledger: what is unfinished, what was sent, how each ended."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ledger, _, self.closed = make_ledger(max_segments=20)
        self.futures: dict[int, asyncio.Future[SequenceOutcome]] = {}
        self.open: dict[int, float] = {}
        self.sent: set[int] = set()
        self.now = 0.0
        self.next_id = 1

    def teardown(self) -> None:
        self.loop.close()

    @rule(count=st.integers(1, 8), wait=st.integers(1, 9) | st.none(), priority=st.sampled_from(Priority))
    def add(self, count: int, wait: int | None, priority: Priority) -> None:
        deadline = math.inf if wait is None else self.now + wait
        batch = [make(self.next_id + offset, deadline, priority) for offset in range(count)]
        self.next_id += count

        async def submit() -> list[asyncio.Future[SequenceOutcome]]:
            return self.ledger.add(batch)

        futures = self.loop.run_until_complete(submit())
        if len(self.open) + count > 20:
            assert all(future.result().reason is FinishReason.OVERLOADED for future in futures)
            return
        for request, future in zip(batch, futures, strict=True):
            self.futures[request.seq_id] = future
            self.open[request.seq_id] = deadline

    @rule(max_tokens=st.integers(1, 400))
    def take(self, max_tokens: int) -> None:
        taken = [request.seq_id for request in self.ledger.take(max_tokens)]
        assert len(taken) == len(set(taken))
        assert set(taken) <= set(self.open) - self.sent
        assert bool(taken) == bool(set(self.open) - self.sent)
        self.sent |= set(taken)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), reason=st.sampled_from([FinishReason.STOP, FinishReason.FAILED]))
    def finish(self, data: st.DataObject, reason: FinishReason) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.open)))
        assert self.ledger.resolve(SequenceOutcome(seq_id, reason))
        assert not self.ledger.resolve(SequenceOutcome(seq_id, FinishReason.STOP))
        self.ended(seq_id, reason)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.open)))
        assert self.ledger.abort([seq_id, 10_000]) == ([seq_id] if seq_id in self.sent else [])
        self.ended(seq_id, FinishReason.ABORTED)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), wait=st.integers(1, 9), priority=st.sampled_from(Priority))
    def update(self, data: st.DataObject, wait: int, priority: Priority) -> None:
        seq_id = data.draw(st.sampled_from(sorted(self.open)))
        told = self.ledger.update(seq_id, priority, self.now + wait)
        assert (told is not None) == (seq_id in self.sent)
        self.open[seq_id] = self.now + wait

    @rule(passes=st.integers(0, 6))
    def expire(self, passes: int) -> None:
        self.now += passes
        due = {seq_id for seq_id, deadline in self.open.items() if deadline <= self.now}
        assert set(self.ledger.expire(self.now)) == due & self.sent
        for seq_id in due:
            self.ended(seq_id, FinishReason.DEADLINE)

    @rule()
    def engine_dies(self) -> None:
        assert set(self.ledger.sent_ids()) == self.sent
        self.ledger.unsend_all()
        self.sent.clear()

    def ended(self, seq_id: int, reason: FinishReason) -> None:
        del self.open[seq_id]
        self.sent.discard(seq_id)
        assert self.futures.pop(seq_id).result().reason is reason
        assert self.closed.count(seq_id) == 1

    @invariant()
    def books_agree(self) -> None:
        assert {request.seq_id for request in self.ledger.requests()} == set(self.open)
        assert self.ledger.num_tokens == 3 * len(self.open)
        assert not any(future.done() for future in self.futures.values())
        assert self.ledger.next_deadline <= min(self.open.values(), default=math.inf)


Book.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBook = Book.TestCase


async def test_interactive_goes_first_and_order_survives_a_death() -> None:
    ledger, _, _ = make_ledger()
    ledger.add([make(1, priority=Priority.BULK), make(2), make(3, priority=Priority.BULK), make(4)])
    assert [request.seq_id for request in ledger.take(10_000)] == [2, 4, 1, 3]
    ledger.unsend_all()
    ledger.update(3, Priority.INTERACTIVE, math.inf)
    assert [request.seq_id for request in ledger.take(10_000)] == [2, 4, 3, 1]


async def test_a_trial_takes_nobody_but_its_group() -> None:
    ledger, _, _ = make_ledger()
    ledger.add([make(seq_id) for seq_id in range(1, 6)])
    assert [request.seq_id for request in ledger.take(10_000, only=(4, 2, 77))] == [4, 2]
    assert ledger.take(10_000, only=(4, 2)) == ()


async def test_a_request_enters_whole_or_not_at_all() -> None:
    ledger, _, _ = make_ledger(max_tokens=10)
    futures = ledger.add([make(seq_id) for seq_id in range(1, 5)])
    assert {future.result().reason for future in futures} == {FinishReason.OVERLOADED}
    assert len(ledger) == 0
    ledger.add([make(seq_id) for seq_id in range(5, 8)])
    assert len(ledger) == 3


async def test_a_cancelled_future_is_reported_once() -> None:
    ledger, cancelled, _ = make_ledger()
    first, second = ledger.add([make(1), make(2)])
    first.cancel()
    ledger.resolve(SequenceOutcome(2, FinishReason.STOP))
    await asyncio.sleep(0)
    assert cancelled == [1]
    assert second.done()
    assert ledger.abort([1]) == []
    assert len(ledger) == 0


async def test_an_id_cannot_be_used_twice_at_once() -> None:
    ledger, _, _ = make_ledger()
    ledger.add([make(1)])
    with pytest.raises(ValueError, match="already"):
        ledger.add([make(1)])


async def test_deadlines_of_the_finished_do_not_pile_up() -> None:
    ledger, _, _ = make_ledger()
    for seq_id in range(1, 5001):
        ledger.add([make(seq_id, deadline=60.0)])
        ledger.resolve(SequenceOutcome(seq_id, FinishReason.STOP))
    assert len(ledger._deadlines) < 1100


async def test_tokens_are_counted_while_sequences_end() -> None:
    """Figures are read by another thread, and the loop may end a sequence between any two looks at it."""
    ledger, _, _ = make_ledger()
    ledger.add([make(1), make(2)])
    num_looks = 0

    class Ending(int):
        def __hash__(self) -> int:
            nonlocal num_looks
            num_looks += 1
            if num_looks > 1:
                ledger.resolve(SequenceOutcome(1, FinishReason.STOP))
            return int.__hash__(self)

    assert ledger.tokens_of((Ending(1), 2)) == 6
