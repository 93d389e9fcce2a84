"""The scheduler driven by hand and at random; tests/engine/test_engine.py drives it under the engine."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.engine.fake import FakeRunner, FakeScript
from nllbd.sched.plan import FatalRunnerError, StepPlan, StepResult
from nllbd.sched.scheduler import Scheduler
from nllbd.sched.sequence import FinishReason, Priority, SequenceOutcome, SequenceRequest

Make = Callable[..., SequenceRequest]


class Bench:
    """A scheduler with an echo runner and a clock that stands still unless told otherwise."""

    def __init__(self, num_blocks: int = 4096, block_size: int = 4, script: str = "fake", **budgets: int) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(num_blocks, block_size, clock=lambda: self.now, **budgets)
        self.runner = FakeRunner(FakeScript.parse(script), num_blocks, block_size)
        self.plans: list[StepPlan] = []
        self.num_faults = 0
        self.outcomes: dict[int, SequenceOutcome] = {}

    def add(self, requests: Iterable[SequenceRequest]) -> None:
        for request in requests:
            self.scheduler.add(request)

    def step(self) -> list[SequenceOutcome]:
        plan = self.scheduler.schedule()
        self.plans.append(plan)
        try:
            result = self.runner.execute(plan)
        except FatalRunnerError:
            raise
        except Exception as error:
            self.runner.reset()
            self.num_faults += 1
            outcomes = self.scheduler.fail_step(str(error))
        else:
            outcomes = self.scheduler.apply(result)
        self.scheduler.check_integrity()
        for outcome in outcomes:
            assert outcome.seq_id not in self.outcomes, "a second outcome"
            self.outcomes[outcome.seq_id] = outcome
        return outcomes

    def drain(self) -> int:
        """Step until nothing is left; returns the number of steps that decoded."""
        first = len(self.plans)
        while self.scheduler.has_work:
            self.step()
        assert self.scheduler.kv.pool.num_used == 0
        assert self.runner.num_held == (0, 0, 0)
        return sum(not plan.is_empty for plan in self.plans[first:])

    def started(self, plan: StepPlan | None = None) -> list[int]:
        return [item.request.seq_id for item in (plan or self.plans[-1]).started]


def steps_alone(request: SequenceRequest) -> int:
    """Steps an echo takes: one for each piece and for `</s>`, cut at max_length, and at least one."""
    return max(1, min(max(1, len(request.source_ids) - 1), request.params.max_length - 2))


def echo(request: SequenceRequest) -> tuple[int, ...]:
    return (request.target_id, *request.source_ids[1:-1], 2)[: max(1, request.params.max_length - 1)]


# Progress


requests_strategy = st.lists(
    st.tuples(
        st.integers(1, 24), st.integers(1, 6), st.integers(0, 30), st.sampled_from(Priority), st.sampled_from("ab")
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(requests_strategy, st.integers(1, 9), st.integers(6, 20), st.integers(1, 40), st.integers(0, 10))
def test_everything_finishes_in_any_pool_in_which_each_fits_alone(
    make_request: Make, shapes: list[tuple], block_size: int, max_num_lanes: int, max_encode_tokens: int, spare: int
) -> None:
    requests = [
        make_request(seq_id, num_source, num_beams, max_length, priority=priority, client=client)
        for seq_id, (num_source, num_beams, max_length, priority, client) in enumerate(shapes)
    ]
    measure = Scheduler(1, block_size)
    num_blocks = max(measure.kv.max_need(request) for request in requests) + spare
    bench = Bench(num_blocks, block_size, max_num_lanes=max_num_lanes, max_encode_tokens=max_encode_tokens)
    bench.add(requests)
    assert bench.drain() <= sum(map(steps_alone, requests)), "a step that made nobody longer"
    for request in requests:
        assert bench.outcomes[request.seq_id].hypotheses[0].token_ids == echo(request)
    for plan in bench.plans:
        assert plan.num_lanes <= max_num_lanes
        assert plan.num_encode_tokens <= max_encode_tokens or len(plan.started) == 1
        assert not (plan.preempted and plan.started), "room was made for those that run"


def test_preemption_does_not_thrash(make_request: Make) -> None:
    def preemptions(**options: int) -> int:
        bench = Bench(num_blocks=400, block_size=4, max_num_lanes=64, **options)  # room for eight at full length
        bench.add(make_request(seq_id, 40, 4, 60) for seq_id in range(60))
        steps = bench.drain()
        assert steps <= 2 * 60 / 8 * steps_alone(make_request(0, 40, 4, 60))
        return bench.scheduler.num_preemptions

    assert preemptions() < preemptions(watermark_steps=0) <= 60


@pytest.mark.parametrize(("bulk", "victim"), [(None, 3), (1, 1), (2, 2)])
def test_the_lowest_class_gives_way_first_then_the_youngest(make_request: Make, bulk: int | None, victim: int) -> None:
    bench = tight_bench()
    for seq_id in (1, 2, 3):
        priority = Priority.BULK if seq_id == bulk else Priority.INTERACTIVE
        bench.add([make_request(seq_id, 20, 1, 40, priority=priority)])
    bench.drain()
    assert [seq_id for plan in bench.plans for seq_id in plan.preempted] == [victim]
    resumed = [item for plan in bench.plans for item in plan.started if item.resumed]
    assert [item.request.seq_id for item in resumed] == [victim]
    assert {outcome.reason for outcome in bench.outcomes.values()} == {FinishReason.STOP}
    assert {seq_id: outcome.num_steps for seq_id, outcome in bench.outcomes.items()} == dict.fromkeys((1, 2, 3), 19)


def test_what_was_preempted_resumes_before_its_client_starts_anew(make_request: Make) -> None:
    bench = tight_bench()
    bench.add(make_request(seq_id, 20, 1, 40) for seq_id in range(1, 20))
    bench.drain()
    order = [item.request.seq_id for plan in bench.plans for item in plan.started]
    assert any(plan.preempted for plan in bench.plans)
    for seq_id in {seq_id for plan in bench.plans for seq_id in plan.preempted}:
        first, last = order.index(seq_id), len(order) - 1 - order[::-1].index(seq_id)
        assert all(other < seq_id or order.index(other) < first for other in order[first + 1 : last])


def tight_bench(script: str = "fake") -> Bench:
    """Three sequences of 20 source tokens can start in it (22 blocks each and the watermark), two can finish."""
    return Bench(script=script, num_blocks=90, block_size=1, max_num_lanes=3)


# Budgets


def test_the_encode_budget_is_exceeded_by_one_sequence_alone(make_request: Make) -> None:
    bench = Bench(max_encode_tokens=10)
    bench.add([make_request(1, 6), make_request(2, 4), make_request(3, 25), make_request(4, 2)])
    started = [bench.started() for _ in range(3) if bench.step() is not None]
    assert started == [[1, 2], [3], [4]]


def test_a_resumed_sequence_pays_for_its_prefill(make_request: Make) -> None:
    bench = tight_bench()
    bench.add(make_request(seq_id, 20, 1, 40) for seq_id in (1, 2, 3))
    bench.drain()
    (plan,) = [plan for plan in bench.plans if any(item.resumed for item in plan.started)]
    assert plan.num_encode_tokens == 20 + len(plan.started[0].self_blocks)


def test_waiting_limits_refuse_and_say_so(make_request: Make) -> None:
    bench = Bench(max_num_lanes=1, max_num_beams=1, max_waiting_segments=2)
    bench.add(make_request(seq_id) for seq_id in range(4))
    bench.drain()
    reasons = {seq_id: outcome.reason for seq_id, outcome in bench.outcomes.items()}
    assert reasons == {0: "stop", 1: "stop", 2: "overloaded", 3: "overloaded"}


@pytest.mark.parametrize("max_length", [-3, 0, 1, 2, 3])
def test_tiny_max_lengths_end_in_the_step_they_start(make_request: Make, max_length: int) -> None:
    bench = Bench()
    bench.add([make_request(1, 9, 2, max_length)])
    assert bench.drain() == 1
    outcome = bench.outcomes[1]
    assert (outcome.reason, outcome.num_steps) == (FinishReason.LENGTH, 1)
    assert outcome.hypotheses[0].token_ids == (201, 10)[: max(1, max_length - 1)]


# Fairness


def test_a_document_never_starves_a_line_of_the_same_client(make_request: Make) -> None:
    bench = Bench(max_num_lanes=8, max_num_beams=4)
    bench.add(make_request(seq_id, 12, 4, client="c", request_id="document") for seq_id in range(2000))
    for _ in range(30):
        bench.step()
    bench.add([make_request(5000, 12, 4, client="c", request_id="line")])
    waited = 0
    while 5000 not in bench.started():
        bench.step()
        waited += 1
    assert waited <= steps_alone(make_request(0, 12)), "the line goes next"


def test_two_clients_share_the_lanes(make_request: Make) -> None:
    bench = Bench(max_num_lanes=16)
    bench.add(make_request(seq_id, 30, 4, client="flood") for seq_id in range(1000))
    bench.add(make_request(2000 + seq_id, 15, 2, client="other") for seq_id in range(200))
    lane_steps, owners = {"flood": 0, "other": 0}, {}
    while any(2000 + seq_id not in bench.outcomes for seq_id in range(200)):
        bench.step()
        owners |= {item.request.seq_id: item.request for item in bench.plans[-1].started}
        for seq_id in [seq_id for seq_id in owners if seq_id in bench.outcomes]:
            request = owners.pop(seq_id)
            lane_steps[request.client] += bench.outcomes[seq_id].num_steps * request.params.num_beams
    assert 0.7 <= lane_steps["flood"] / lane_steps["other"] <= 1.4


@pytest.mark.parametrize(("max_num_lanes", "num_beams"), [(4, 4), (8, 4), (64, 4), (40, 1)])
@pytest.mark.parametrize("bulk_pieces", [8, 60])
def test_bulk_keeps_a_tenth_and_interactive_the_rest(
    make_request: Make, max_num_lanes: int, num_beams: int, bulk_pieces: int
) -> None:
    bench = Bench(num_blocks=20_000, max_num_lanes=max_num_lanes)
    running, waiting = Counter(), Counter()
    bulk_lanes, lanes, added = 0, 0, 0
    for step in range(4000):
        for priority, num_source in ((Priority.INTERACTIVE, 20), (Priority.BULK, bulk_pieces)):
            while waiting[priority] < 2 * max_num_lanes:
                added += 1
                waiting[priority] += 1
                bench.scheduler.add(make_request(2 * added + priority, num_source, num_beams, 90, priority=priority))
        ended = _step_without_checks(bench)
        plan = bench.plans[-1]
        for item in plan.started:
            waiting[item.request.priority] -= 1
            running[item.request.priority] += num_beams
        if step >= 1000:
            lanes += plan.num_lanes
            bulk_lanes += running[Priority.BULK]
        for outcome in ended:
            running[Priority(outcome.seq_id % 2)] -= num_beams
    assert 0.095 <= bulk_lanes / lanes <= 0.2


def _step_without_checks(bench: Bench) -> list[SequenceOutcome]:
    plan = bench.scheduler.schedule()
    bench.plans.append(plan)
    return bench.scheduler.apply(bench.runner.execute(plan))


# Deadlines, updates, aborts


def test_what_expired_never_costs_a_step(make_request: Make) -> None:
    bench = Bench(max_num_lanes=1, max_num_beams=1)
    bench.add([make_request(1, 20, deadline=5.0), make_request(2, 20, deadline=3.0), make_request(3, 3, deadline=9.0)])
    bench.step()
    bench.now = 5.0
    ended = bench.step()
    assert {outcome.seq_id: outcome.reason for outcome in ended} == {1: "deadline", 2: "deadline"}
    assert bench.plans[-1].released == (1,), "the one that waited was never told to the runner"
    assert bench.started() == [3]
    bench.drain()
    assert bench.outcomes[1].num_steps == 1
    assert bench.outcomes[2].queue_s == 5.0


def test_an_update_raises_and_never_lowers(make_request: Make) -> None:
    bench = Bench(max_num_lanes=1, max_num_beams=1)
    bench.add(make_request(seq_id, 5, priority=Priority.BULK, deadline=10.0) for seq_id in (1, 2, 3))
    bench.step()
    bench.scheduler.update(3, Priority.INTERACTIVE, 20.0)
    bench.scheduler.update(1, Priority.BULK, 20.0)
    bench.scheduler.update(3, Priority.BULK, 1.0)
    bench.scheduler.update(99, Priority.BULK, 1.0)
    bench.scheduler.check_integrity()
    while not bench.outcomes:
        bench.step()
    bench.step()
    assert bench.started() == [3]
    bench.now = 10.0
    bench.drain()
    assert {seq_id: outcome.reason for seq_id, outcome in bench.outcomes.items()} == {
        1: "stop",
        2: "deadline",
        3: "stop",
    }


def test_a_running_sequence_changes_its_class(make_request: Make) -> None:
    bench = tight_bench()
    bench.add(make_request(seq_id, 20, 1, 40, priority=Priority.BULK) for seq_id in (1, 2, 3))
    bench.step()
    bench.scheduler.update(3, Priority.INTERACTIVE, 0.0)
    bench.drain()
    assert [seq_id for plan in bench.plans for seq_id in plan.preempted] == [2]


def test_an_abort_frees_at_once_and_twice_is_once(make_request: Make) -> None:
    bench = Bench()
    bench.add(make_request(seq_id, 5) for seq_id in (1, 2))
    bench.step()
    bench.scheduler.abort([1, 1, 77])
    bench.scheduler.abort([1])
    assert bench.scheduler.num_running == 1
    assert [outcome.reason for outcome in bench.step()] == ["aborted"]
    bench.drain()
    assert len(bench.outcomes) == 2


def test_an_aborted_preempted_sequence_is_released(make_request: Make) -> None:
    bench = tight_bench()
    bench.add(make_request(seq_id, 20, 1, 40) for seq_id in (1, 2, 3))
    while bench.step() is not None and not bench.plans[-1].preempted:
        assert bench.scheduler.has_work
    assert bench.plans[-1].preempted == (3,)
    bench.scheduler.abort([3])
    bench.step()
    assert bench.plans[-1].released == (3,)
    bench.drain()
    assert (bench.outcomes[3].reason, bench.outcomes[3].num_preemptions) == (FinishReason.ABORTED, 1)


# Faults


@pytest.mark.parametrize("place", [0, 1, 31, 63])
@pytest.mark.parametrize("depth", [1, 9])
def test_probation_finds_the_culprit_among_64_and_loses_nobody(make_request: Make, place: int, depth: int) -> None:
    requests = [make_request(seq_id, 12, client=str(seq_id % 5)) for seq_id in range(64)]
    ids = list(requests[place].source_ids)
    ids[depth] = 777
    requests[place] = _with_source(requests[place], ids)
    bench = Bench(script="fake:raise_on=777", max_num_lanes=64)
    bench.add(requests)
    bench.drain()
    failed = {seq_id for seq_id, outcome in bench.outcomes.items() if outcome.reason is FinishReason.FAILED}
    assert failed == {place}
    assert "777" in bench.outcomes[place].message
    for request in requests:
        expected = () if request.seq_id == place else (echo(request),)
        assert tuple(item.token_ids for item in bench.outcomes[request.seq_id].hypotheses) == expected


def test_probation_is_short_and_leaves_no_trace(make_request: Make) -> None:
    """Each fault halves the suspects; the innocent get no further than the fault before the next group is tried."""
    bench = Bench(num_blocks=40_000, script="fake:raise_on=777", max_num_lanes=64, max_encode_tokens=60_000)
    bench.add([_with_source(make_request(0, max_length=900), [200, 10, 11, 12, 777, 2])])
    bench.add(make_request(seq_id, 800, max_length=900) for seq_id in range(1, 64))
    while 0 not in bench.outcomes:
        bench.step()
    assert bench.num_faults == 7
    assert len(bench.plans) <= 4 + 4 * 12
    while bench.plans[-1].num_lanes < 63:
        bench.step()
    bench.add([make_request(100)])
    bench.step()
    assert bench.plans[-1].num_lanes == 64, "the batch is as large as before, for a culprit was found"
    assert len(bench.plans) <= 100


def test_others_wait_during_probation_and_aborts_reach_into_it(make_request: Make) -> None:
    bench = Bench(script="fake:raise_on=777", max_num_lanes=16)
    bench.add(_with_source(make_request(seq_id), [200, 777, 2]) for seq_id in range(8))
    bench.step()
    bench.add([make_request(100), make_request(101, priority=Priority.BULK, deadline=1.0)])
    bench.scheduler.abort([0, 5])
    bench.scheduler.update(7, Priority.INTERACTIVE, math.inf)
    bench.now = 2.0
    order = []
    while bench.scheduler.has_work:
        order += [outcome.seq_id for outcome in bench.step()]
    assert order[-1] == 100, "everyone under suspicion is dealt with first"
    reasons = [bench.outcomes[seq_id].reason.value for seq_id in (*range(8), 100, 101)]
    assert reasons == ["aborted", *["failed"] * 4, "aborted", *["failed"] * 2, "stop", "deadline"]


def test_too_many_lanes_shrink_the_batch_and_blame_nobody(make_request: Make) -> None:
    bench = Bench(script="fake:oom_lanes=10", max_num_lanes=64)
    bench.add(make_request(seq_id, 12, 4) for seq_id in range(100))
    bench.drain()
    assert {outcome.reason for outcome in bench.outcomes.values()} == {FinishReason.STOP}
    assert bench.plans[-1].num_lanes <= 8


def test_search_state_that_a_reset_lost_is_not_resumed(make_request: Make) -> None:
    """A sequence that was preempted when another one made a step raise begins again."""
    bench = tight_bench("fake:raise_on=777")
    bench.add([_with_source(make_request(1, 20, 1, 40), [200, *range(10, 26), 777, 27, 2])])
    bench.add(make_request(seq_id, 20, 1, 40) for seq_id in (2, 3))
    bench.drain()
    assert next(seq_id for plan in bench.plans for seq_id in plan.preempted) == 3
    assert not any(item.resumed for plan in bench.plans for item in plan.started if item.request.seq_id == 3)
    assert {seq_id: outcome.reason for seq_id, outcome in bench.outcomes.items()} == {1: "failed", 2: "stop", 3: "stop"}


def test_a_sequence_the_runner_gives_up_on_fails_alone(make_request: Make) -> None:
    bench = Bench(script="fake:fail_on=777")
    bench.add([make_request(1), _with_source(make_request(2), [200, 10, 777, 11, 2])])
    bench.drain()
    assert (bench.outcomes[1].reason, bench.outcomes[2].reason) == (FinishReason.STOP, FinishReason.FAILED)


def _with_source(request: SequenceRequest, source_ids: Iterable[int]) -> SequenceRequest:
    return SequenceRequest(
        request.seq_id, tuple(source_ids), request.target_id, request.params, request.deadline, client=request.client
    )


# Misuse


def test_misuse_is_refused_and_changes_nothing(make_request: Make) -> None:
    scheduler = Scheduler(100, 4)
    scheduler.add(make_request(1))
    with pytest.raises(ValueError, match="added twice"):
        scheduler.add(make_request(1))
    with pytest.raises(RuntimeError, match="no step"):
        scheduler.fail_step("?")
    plan = scheduler.schedule()
    with pytest.raises(RuntimeError, match="no result yet"):
        scheduler.schedule()
    for wrong in (StepResult(plan.step + 1), StepResult(plan.step, failed=((2, ""),)), _twice(plan)):
        with pytest.raises(ValueError, match="step"):
            scheduler.apply(wrong)
        scheduler.check_integrity()
    scheduler.apply(StepResult(plan.step))


def _twice(plan: StepPlan) -> StepResult:
    return StepResult(plan.step, failed=((1, ""), (1, "")))


# Cost


def test_a_step_costs_the_same_however_many_wait(make_request: Make) -> None:
    def best_step_s(num_waiting: int) -> float:
        scheduler = Scheduler(4096, 16, max_num_lanes=8, max_num_beams=1, clock=lambda: 0.0)
        for seq_id in range(8 + num_waiting):
            request = make_request(
                seq_id, 5, 1, 10_000, client=str(seq_id % 7), request_id=str(seq_id % 50), deadline=9.0
            )
            scheduler.add(request)
        best = math.inf
        for _ in range(60):
            begin = time.perf_counter()
            for _ in range(20):
                scheduler.apply(StepResult(scheduler.schedule().step))
            best = min(best, (time.perf_counter() - begin) / 20)
        assert scheduler.num_waiting == num_waiting
        return best

    few, many = best_step_s(20), best_step_s(10_000)
    assert many <= 4 * few + 20e-6, f"{few * 1e6:.1f} µs with 20 waiting, {many * 1e6:.1f} µs with 10,000"
