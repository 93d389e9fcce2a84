"""The engine over the real scheduler and the echo runner, driven at random: the contract of one outcome each."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nllbd.bridge.protocol import EngineInfo
from nllbd.engine.engine import LAST_STEPS, MAX_CLIENTS_SHOWN, Engine, Rate
from nllbd.engine.fake import FakeRunner, FakeScript, PlanError
from nllbd.sched.plan import FatalRunnerError, StepPlan, StepResult
from nllbd.sched.scheduler import Scheduler
from nllbd.sched.sequence import FinishReason, Priority, SearchParams, SequenceOutcome, SequenceRequest

RAISES, FAILS = 777, 778
MAX_NUM_BEAMS = 5
INFO = EngineInfo("fake", "none", 0, 0, 0, 0, 1, 0.0, 0)


class WatchedRunner(FakeRunner):
    """Also checks what a plan promises beyond the KV contract: budgets, and no step for what has expired."""

    clock = staticmethod(lambda: 0.0)
    max_num_lanes = max_encode_tokens = 1 << 30

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.peaks: dict[int, int] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        if plan.num_lanes > self.max_num_lanes:
            raise PlanError("over the lane budget")
        if plan.num_encode_tokens > self.max_encode_tokens and len(plan.started) > 1:
            raise PlanError("over the encode budget")
        if any(item.request.deadline <= self.clock() for item in plan.started):
            raise PlanError("started what had expired")
        left = {*plan.released, *plan.preempted}
        present = {*self._live, *(item.request.seq_id for item in plan.started)} - left
        result = super().execute(plan)
        for seq_id in present:  # steps that raise are none
            self.peaks[seq_id] = max(self.peaks.get(seq_id, 0), plan.num_lanes)
        return result


def expected(request: SequenceRequest) -> tuple[FinishReason, tuple[int, ...]]:
    """What an echo comes to when nothing but the runner ends it."""
    ids = (request.target_id, *request.source_ids[1:-1], 2)
    cut = ids[: max(1, request.params.max_length - 1)]
    if RAISES in cut or FAILS in cut:
        return FinishReason.FAILED, ()
    return (FinishReason.STOP if len(cut) == len(ids) else FinishReason.LENGTH), cut


class EngineMachine(RuleBasedStateMachine):
    """Anything may happen between steps; after each the books balance, and in the end everybody had one outcome."""

    @initialize(
        num_blocks=st.integers(40, 90),
        block_size=st.sampled_from([1, 2, 3]),
        max_num_lanes=st.integers(3, 12),
        max_encode_tokens=st.integers(1, 100),
        max_waiting=st.integers(5, 60),
        watermark_steps=st.sampled_from([0, 8]),
        oom_lanes=st.sampled_from([0, 0, 0, MAX_NUM_BEAMS]),
    )
    def build(
        self,
        num_blocks: int,
        block_size: int,
        max_num_lanes: int,
        max_encode_tokens: int,
        max_waiting: int,
        watermark_steps: int,
        oom_lanes: int,
    ) -> None:
        self.now = 0.0
        self.requests: dict[int, SequenceRequest] = {}
        self.outcomes: dict[int, SequenceOutcome] = {}
        self.aborted: set[int] = set()
        script = FakeScript(raise_on=RAISES, fail_on=FAILS, oom_lanes=oom_lanes)
        self.runner = WatchedRunner(script, num_blocks, block_size)
        self.runner.clock = lambda: self.now
        self.runner.max_num_lanes, self.runner.max_encode_tokens = max_num_lanes, max_encode_tokens
        scheduler = Scheduler(
            num_blocks,
            block_size,
            max_num_lanes,
            max_encode_tokens,
            max_num_beams=MAX_NUM_BEAMS,
            max_waiting_segments=max_waiting,
            max_waiting_tokens=600,
            clock=lambda: self.now,
            watermark_steps=watermark_steps,
        )
        self.engine = Engine(self.runner, scheduler, INFO, clock=lambda: self.now)

    @rule(
        items=st.lists(
            st.tuples(
                st.integers(0, 24),  # pieces
                st.sampled_from([0] * 8 + [RAISES, FAILS]),
                st.sampled_from([1, 1, 1, 2, 3, 6]),  # beams
                st.integers(0, 40),  # max_length
                st.sampled_from([math.inf, 1.0, 5.0]),
                st.sampled_from(Priority),
                st.sampled_from("abc"),
                st.sampled_from("xy"),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def add(self, items: list[tuple]) -> None:
        batch = []
        for num_pieces, poison, num_beams, max_length, timeout_s, priority, client, request_id in items:
            params = SearchParams(num_beams=num_beams, max_length=max_length)
            seq_id = len(self.requests)
            ids = (200, *range(10, 10 + num_pieces), *([poison] if poison else []), 2)
            self.requests[seq_id] = SequenceRequest(
                seq_id, ids, 201, params, self.now + timeout_s, priority, client, request_id
            )
            batch.append(self.requests[seq_id])
        self.engine.add(batch)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.take(self.engine.step())

    @rule(data=st.data())
    @precondition(lambda self: self.requests)
    def abort(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(0, len(self.requests)), max_size=4))
        self.aborted |= {seq_id for seq_id in ids if seq_id not in self.outcomes}
        self.engine.abort(ids)

    @rule(data=st.data(), priority=st.sampled_from(Priority), timeout_s=st.sampled_from([0.0, 8.0, math.inf]))
    @precondition(lambda self: self.requests)
    def update(self, data: st.DataObject, priority: Priority, timeout_s: float) -> None:
        self.engine.update(data.draw(st.integers(0, len(self.requests))), priority, self.now + timeout_s)

    @rule(seconds=st.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check_integrity()

    def take(self, outcomes: list[SequenceOutcome]) -> None:
        self.engine.check_integrity()
        for outcome in outcomes:
            assert outcome.seq_id not in self.outcomes, "a second outcome"
            self.outcomes[outcome.seq_id] = outcome
            self.judge(outcome)

    def judge(self, outcome: SequenceOutcome) -> None:
        request = self.requests[outcome.seq_id]
        reason, token_ids = expected(request)
        if outcome.reason is FinishReason.ABORTED:
            assert outcome.seq_id in self.aborted
        elif outcome.reason is FinishReason.DEADLINE:
            assert request.deadline <= self.now
        elif outcome.reason not in {FinishReason.OVERLOADED, FinishReason.TOO_LARGE}:
            assert outcome.reason is reason
        if outcome.reason in {FinishReason.STOP, FinishReason.LENGTH}:
            assert [hypothesis.token_ids for hypothesis in outcome.hypotheses] == [token_ids]
        else:
            assert outcome.hypotheses == ()
        assert outcome.peak_lanes == self.runner.peaks.get(outcome.seq_id, 0)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        steps = 0
        while self.engine.has_work:
            self.take(self.engine.step())
            steps += 1
            assert steps < 20_000, "no end in sight"
        assert set(self.outcomes) == set(self.requests)
        stats = self.engine.stats
        assert (stats.used_blocks, stats.num_running, stats.num_waiting, stats.waiting_tokens) == (0, 0, 0, 0)
        assert self.runner.num_held == (0, 0, 0)


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def build(script: str = "fake", **budgets: int) -> Engine:
    runner = FakeRunner(FakeScript.parse(script), sleep=lambda seconds: None)
    return Engine(runner, Scheduler(4096, **budgets), INFO)


def request(seq_id: int, *pieces: int) -> SequenceRequest:
    return SequenceRequest(seq_id, (200, *pieces, 2), 201, SearchParams(num_beams=2), math.inf)


def drain(engine: Engine) -> dict[int, SequenceOutcome]:
    outcomes: dict[int, SequenceOutcome] = {}
    while engine.has_work:
        outcomes |= {outcome.seq_id: outcome for outcome in engine.step()}
    return outcomes


def test_it_translates() -> None:
    engine = build()
    assert not engine.has_work
    assert engine.step() == []
    engine.add([request(1, 10, 11, 12), request(2)])
    outcomes = drain(engine)
    assert outcomes[1].hypotheses[0].token_ids == (201, 10, 11, 12, 2)
    assert outcomes[2].hypotheses[0].token_ids == (201, 2)
    assert (outcomes[1].num_steps, outcomes[2].num_steps) == (4, 1)


def test_a_look_inside() -> None:
    engine = build(max_num_lanes=4)
    engine.add([replace(request(seq_id, 10, 11), client="ab"[seq_id % 2]) for seq_id in range(5)])
    engine.step()
    seen = engine.inspect(check=True)
    assert seen.integrity == ""
    assert {
        (row.client, row.num_running, row.num_lanes, row.num_waiting, row.waiting_tokens) for row in seen.clients
    } == {
        ("a", 2, 4, 1, 4),
        ("b", 0, 0, 2, 8),
    }
    assert (seen.num_clients, seen.num_parked, seen.lane_limit) == (2, 0, 4)
    assert [(step.num_sequences, step.num_lanes, step.encode_tokens) for step in seen.last_steps] == [(2, 4, 8)]
    assert sum(engine.stats.step_counts) == engine.stats.steps == 1
    engine._scheduler.waiting_tokens += 1
    assert "miscounted" in (engine.inspect(check=True).integrity or "")
    assert engine.inspect(check=False).integrity is None


def test_a_look_inside_is_bounded() -> None:
    engine = build()
    engine.add([replace(request(seq_id, *range(10, 40)), client=f"client {seq_id}") for seq_id in range(900)])
    for _ in range(80):
        engine.add([replace(request(2000 + engine.stats.steps, *range(10, 40)), client="z")])
        engine.step()
    seen = engine.inspect(check=False)
    assert (len(seen.clients), len(seen.last_steps)) == (MAX_CLIENTS_SHOWN, LAST_STEPS)
    assert seen.num_clients > MAX_CLIENTS_SHOWN


def test_refusals_come_out_of_the_next_step_without_the_runner() -> None:
    engine = build(max_num_beams=1)
    engine.add([request(1)])
    assert engine.has_work
    assert [outcome.reason for outcome in engine.step()] == [FinishReason.TOO_LARGE]
    assert engine.stats.steps == 0


def test_the_runner_is_told_of_an_abort_although_nothing_runs() -> None:
    engine = build()
    engine.add([request(1, 10, 11)])
    engine.step()
    engine.abort([1])
    assert [outcome.reason for outcome in engine.step()] == [FinishReason.ABORTED]
    assert isinstance(engine.runner, FakeRunner)
    assert engine.runner.num_held == (0, 0, 0)
    assert not engine.has_work


@pytest.mark.parametrize("script", ["fake:raise_on=777", "fake:fail_on=777"])
def test_a_poisoned_sequence_fails_alone(script: str) -> None:
    engine = build(script)
    engine.add([request(seq_id, 10, 11, 777 if seq_id == 5 else 12) for seq_id in range(9)])
    outcomes = drain(engine)
    assert [seq_id for seq_id, outcome in outcomes.items() if outcome.reason is FinishReason.FAILED] == [5]
    assert len(outcomes) == 9
    assert "777" in outcomes[5].message


def test_out_of_memory_shrinks_the_batch() -> None:
    engine = build("fake:oom_lanes=5")
    engine.add(request(seq_id, 10, 11, 12) for seq_id in range(20))
    assert {outcome.reason for outcome in drain(engine).values()} == {FinishReason.STOP}


def test_a_fatal_error_leaves_the_engine() -> None:
    engine = build("fake:fatal_on=777")
    engine.add([request(1, 777)])
    with pytest.raises(FatalRunnerError):
        engine.step()


def test_a_runner_that_cannot_be_reset_is_fatal() -> None:
    class Broken(FakeRunner):
        def reset(self) -> None:
            raise RuntimeError("no reset")

    engine = Engine(Broken(FakeScript(raise_on=777)), Scheduler(100), INFO)
    engine.add([request(1, 777), request(2, 777)])
    with pytest.raises(RuntimeError, match="no reset"):
        engine.step()


def test_ids_must_be_distinct_while_alive() -> None:
    engine = build()
    engine.add([request(1)])
    with pytest.raises(ValueError, match="added twice"):
        engine.add([request(1)])
    drain(engine)
    engine.add([request(1)])
    assert len(drain(engine)) == 1


def test_stats_count() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    runner = FakeRunner(FakeScript(step_ms=100), sleep=sleep)
    engine = Engine(runner, Scheduler(4096, max_num_lanes=4, clock=lambda: now), INFO, clock=lambda: now)
    engine.add(request(seq_id, 10, 11, 12) for seq_id in range(3))
    engine.step()
    stats = engine.stats
    assert (stats.num_running, stats.num_waiting, stats.num_lanes, stats.waiting_tokens) == (2, 1, 4, 5)
    assert (stats.steps, stats.source_tokens, stats.target_tokens) == (1, 10, 2)
    assert (stats.used_blocks, stats.num_blocks, stats.preemptions) == (4, 4096, 0)
    assert stats.tokens_per_s == pytest.approx(20.0)
    outcomes = drain(engine)
    stats = engine.stats
    assert (stats.steps, stats.source_tokens, stats.target_tokens) == (8, 15, 12)
    assert (stats.decode_s, stats.last_step_s) == (pytest.approx(0.8), pytest.approx(0.1))
    assert outcomes[2].queue_s == pytest.approx(0.4)
    assert outcomes[2].decode_s == pytest.approx(0.4)


def test_the_rate_follows_what_happens_and_ignores_idleness() -> None:
    rate = Rate(window_s=10.0)
    assert rate.per_s == 0.0
    rate.record(5, 0.0)
    assert rate.per_s == 0.0
    rate = Rate(window_s=10.0)
    for _ in range(1000):
        rate.record(10, 0.1)
    assert rate.per_s == pytest.approx(100.0)
    for _ in range(1000):
        rate.record(50, 0.1)
    assert rate.per_s == pytest.approx(500.0, rel=0.01)
