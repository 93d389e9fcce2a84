"""The runner on the demo model, plan by plan: KV address freedom, preemption, release, reset."""

import pytest
import torch

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.engine.runner import ModelRunner
from nllbd.model.nllb import NllbModel
from nllbd.sched.plan import StartedSequence, StepPlan
from nllbd.sched.sequence import SearchParams, SequenceRequest

BLOCK = 16
SOURCE = (8001, *range(300, 330), 2)
TARGET = 8050


@pytest.fixture(scope="module")
def model() -> NllbModel:
    return NllbModel(read_checkpoint(DEMO_FOLDER), "float32", torch.device("cpu"))


def _runner(model: NllbModel) -> ModelRunner:
    runner = ModelRunner(model, num_blocks=64, block_size=BLOCK)
    # what was never written must never be read: any use of it shows as NaN
    runner.cache.keys.fill_(torch.nan)
    runner.cache.values.fill_(torch.nan)
    return runner


def _start(seq_id: int, first_block: int, *, beams: int = 4, max_length: int = 24, resumed: bool = False):
    request = SequenceRequest(seq_id, SOURCE, TARGET, SearchParams(num_beams=beams, max_length=max_length), 0.0)
    num_blocks = -(-beams * max_length // BLOCK)
    first_own = first_block + 2
    own = tuple(range(first_own, first_own + num_blocks))
    return StartedSequence(request, (first_block, first_block + 1), own, resumed)


def _finish(runner: ModelRunner, first_step: int = 1) -> dict[int, object]:
    done: dict[int, object] = {}
    step = first_step
    while len(runner.batch):
        for item in runner.execute(StepPlan(step)).finished:
            done[item.seq_id] = item.hypotheses
        step += 1
    return done


def test_where_the_blocks_lie_does_not_matter(model: NllbModel) -> None:
    runner = _runner(model)
    results = []
    for first_block in (0, 33):
        runner.execute(StepPlan(0, started=(_start(1, first_block),)))
        results.append(_finish(runner)[1])
    assert results[0] == results[1]


@pytest.mark.parametrize("pause_after", [0, 1, 3, 8])
def test_preemption_changes_nothing(model: NllbModel, pause_after: int) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_start(1, 0),)))
    expected = _finish(runner)[1]
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_start(1, 0), _start(2, 20, beams=1))))
    for step in range(pause_after):
        runner.execute(StepPlan(step + 1))
    runner.execute(StepPlan(50, preempted=(1,)))
    assert runner.batch.seq_ids in ([2], [])
    runner.cache.keys[:, : 20 * BLOCK] = torch.nan  # its blocks go to somebody else
    runner.execute(StepPlan(51, started=(_start(1, 40, resumed=True),)))
    (found,) = [hypotheses for seq_id, hypotheses in _finish(runner, 52).items() if seq_id == 1]
    assert [h.token_ids for h in found] == [h.token_ids for h in expected]
    assert not runner.suspended


def test_released_sequences_are_forgotten_running_or_suspended(model: NllbModel) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_start(1, 0), _start(2, 20))))
    runner.execute(StepPlan(1, preempted=(2,)))
    runner.execute(StepPlan(2, released=(1, 2)))
    assert not len(runner.batch)
    assert not runner.suspended


def test_no_room_after_the_language_code(model: NllbModel) -> None:
    runner = _runner(model)
    (done,) = runner.execute(StepPlan(0, started=(_start(1, 0, max_length=2),))).finished
    assert done.truncated
    assert done.hypotheses[0].token_ids == (TARGET,)
    assert not len(runner.batch)


def test_reset_forgets_everything_and_the_runner_goes_on(model: NllbModel) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_start(1, 0),)))
    expected = _finish(runner)[1]
    runner.execute(StepPlan(0, started=(_start(2, 0), _start(3, 20))))
    runner.reset()
    runner.execute(StepPlan(1, started=(_start(4, 0),)))
    assert _finish(runner)[4] == expected
