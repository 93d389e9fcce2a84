from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest

from nllbd.engine.fake import FakeRunner, FakeScript, PlanError
from nllbd.errors import ConfigError
from nllbd.sched.plan import FatalRunnerError, StartedSequence, StepPlan
from nllbd.sched.sequence import SearchParams, SequenceRequest


def request(seq_id: int = 1, pieces: tuple[int, ...] = (10, 11), num_beams: int = 2, **params: int) -> SequenceRequest:
    search = SearchParams(num_beams=num_beams, max_length=params.pop("max_length", 32), **params)
    return SequenceRequest(seq_id, (200, *pieces, 2), 201, search, math.inf)


def plan(step: int, *started: StartedSequence, num_sequences: int = 1, num_lanes: int = 2, **rest) -> StepPlan:
    return StepPlan(step, started=started, num_sequences=num_sequences, num_lanes=num_lanes, **rest)


START = StartedSequence(request(), cross_blocks=(0,), self_blocks=(1,))


def started(script: str = "fake") -> FakeRunner:
    """Block size 4: one cross block for four source tokens, one self block for two positions of two lanes."""
    runner = FakeRunner(FakeScript.parse(script), num_blocks=8, block_size=4)
    runner.execute(plan(1, START))
    return runner


def test_an_echo_takes_a_step_a_token() -> None:
    runner = FakeRunner(num_blocks=16, block_size=4)
    item = StartedSequence(request(num_hypotheses=2), cross_blocks=(3,), self_blocks=(0,))
    assert runner.execute(plan(1, item)).finished == ()
    assert runner.execute(plan(2, grown=((1, (5,)),))).finished == ()
    (finished,) = runner.execute(plan(3)).finished
    assert [hypothesis.token_ids for hypothesis in finished.hypotheses] == [(201, 10, 11, 2)] * 2
    assert finished.hypotheses[0].score > finished.hypotheses[1].score
    assert not finished.truncated
    assert runner.num_held == (0, 0, 0)


@pytest.mark.parametrize(
    ("max_length", "token_ids", "truncated"),
    [
        (5, (201, 10, 11, 2), False),
        (4, (201, 10, 11), True),
        (3, (201, 10), True),
        (2, (201,), True),
        (0, (201,), True),
    ],
)
def test_max_length_counts_everything(max_length: int, token_ids: tuple[int, ...], truncated: bool) -> None:
    runner = FakeRunner(num_blocks=4, block_size=16)
    item = StartedSequence(request(max_length=max_length), cross_blocks=(0,), self_blocks=(1,))
    finished = runner.execute(plan(1, item)).finished
    step = 1
    while not finished:
        step += 1
        finished = runner.execute(plan(step)).finished
    assert (finished[0].hypotheses[0].token_ids, finished[0].truncated) == (token_ids, truncated)


def test_search_state_survives_a_preemption_and_kv_does_not() -> None:
    runner = started()
    runner.execute(StepPlan(2, preempted=(1,)))
    assert runner.num_held == (0, 1, 0)
    resumed = StartedSequence(request(), cross_blocks=(7,), self_blocks=(6, 5), resumed=True)
    runner.execute(plan(3, resumed))
    (finished,) = runner.execute(plan(4)).finished
    assert finished.hypotheses[0].token_ids == (201, 10, 11, 2)


@pytest.mark.parametrize(
    "broken",
    [
        plan(1),  # a step that was
        plan(2),  # a third position without slots
        plan(2, grown=((1, (1,)),)),  # its own block again
        plan(2, grown=((1, (8,)),)),  # a block that does not exist
        plan(2, grown=((9, (2,)),)),
        plan(2, START),  # twice
        plan(2, StartedSequence(request(2), (2,), (0,)), num_sequences=2, num_lanes=4),  # another one's block
        plan(2, StartedSequence(request(2), (2,), (3,), resumed=True), num_sequences=2, num_lanes=4),
        plan(2, StartedSequence(request(2), (2,), ()), num_sequences=2, num_lanes=4, grown=((1, (3,)),)),
        plan(2, grown=((1, (2,)),), num_lanes=3),
        plan(2, grown=((1, (2,)),), num_sequences=2),
        StepPlan(2, released=(9,)),
        StepPlan(2, preempted=(9,)),
    ],
)
def test_a_broken_plan_is_fatal(broken: StepPlan) -> None:
    with pytest.raises(PlanError):
        started().execute(broken)


def test_overwritten_kv_is_noticed() -> None:
    runner = FakeRunner(num_blocks=4, block_size=16)
    runner.execute(plan(1, StartedSequence(request(), cross_blocks=(0,), self_blocks=(1,))))
    runner._slots[16 + 3] = 99  # position 1 of lane 1, which the second hypothesis reads
    runner.execute(plan(2))
    with pytest.raises(PlanError, match="overwritten"):
        FakeRunner._finish(runner, _with_two_hypotheses(runner), truncated=False)


def _with_two_hypotheses(runner: FakeRunner):
    state = runner._live[1]
    state.request = request(num_hypotheses=2)
    return state


@pytest.mark.parametrize(("script", "error"), [("raise_on", RuntimeError), ("fatal_on", FatalRunnerError)])
def test_scripted_errors_and_reset(script: str, error: type[Exception]) -> None:
    runner = FakeRunner(FakeScript.parse(f"fake:{script}=11"), num_blocks=4, block_size=16)
    item = StartedSequence(request(), cross_blocks=(0,), self_blocks=(1,))
    runner.execute(plan(1, item))
    with pytest.raises(error, match="token 11"):
        runner.execute(plan(2))
    runner.reset()
    assert runner.num_held == (0, 0, 0)
    runner.execute(plan(3, item))


def test_a_scripted_failure_is_reported_and_forgotten() -> None:
    runner = FakeRunner(FakeScript.parse("fake:fail_on=10"), num_blocks=4)
    result = runner.execute(plan(1, START))
    assert result.failed == ((1, "scripted: token 10"),)
    assert runner.num_held == (0, 0, 0)


def test_too_many_lanes_are_out_of_memory() -> None:
    with pytest.raises(MemoryError):
        started("fake:oom_lanes=1")


def test_steps_last_as_long_as_scripted() -> None:
    slept: list[float] = []
    runner = FakeRunner(FakeScript(step_ms=5, token_us=100), num_blocks=4, sleep=slept.append)
    result = runner.execute(plan(1, START, num_encode_tokens=4))
    assert slept == [pytest.approx(0.0054)]
    assert (result.encode_s, result.decode_s) == (pytest.approx(0.0004), pytest.approx(0.005))


def test_a_hang_sleeps_for_ever() -> None:
    class Awake(Exception):
        pass

    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise Awake

    runner = FakeRunner(FakeScript(hang_on=10), num_blocks=4, sleep=sleep)
    with pytest.raises(Awake):
        runner.execute(plan(1, START))


def test_death_is_by_sigkill() -> None:
    code = (
        "from nllbd.engine.fake import *; from nllbd.sched.plan import *; from nllbd.sched.sequence import *;"
        "request = SequenceRequest(1, (200, 78, 2), 201, SearchParams(num_beams=1), 0.0);"
        "start = StartedSequence(request, (0,), (1,));"
        "plan = StepPlan(1, started=(start,), num_sequences=1, num_lanes=1);"
        "FakeRunner(FakeScript.parse('fake:die_on=78')).execute(plan)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -signal.SIGKILL


def test_scripts_are_read() -> None:
    script = FakeScript.parse("fake:step_ms=5,raise_on=77,die_on=78,hang_on=79")
    assert script == FakeScript(step_ms=5.0, raise_on=77, die_on=78, hang_on=79)
    assert FakeScript.parse("fake") == FakeScript.parse("fake:") == FakeScript()


@pytest.mark.parametrize("text", ["model", "fakes", "fake:speed=3", "fake:die_on", "fake:die_on=x", "fake:step_ms=ms"])
def test_scripts_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="runner"):
        FakeScript.parse(text)
