"""The GPU's runner against the CPU's, in float32 on whatever device there is: plan by plan, and under the engine."""

import os
import random
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

from bench.exactness import make_requests, run_engine, small_engine
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.engine.engine import Engine
from nllbd.engine.gpu_runner import GpuRunner
from nllbd.engine.runner import ModelRunner
from nllbd.kernels.dispatch import reference_kernels, triton_kernels
from nllbd.model.nllb import NllbModel
from nllbd.sched.plan import FatalRunnerError, FinishedSequence, Runner, StartedSequence, StepPlan
from nllbd.sched.sequence import SearchParams, SequenceRequest
from tests.kernels.interpreter import use_interpreter

use_interpreter()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK, POSITIONS = 16, 128
SOURCE = (8001, *range(300, 330), 2)
TARGET = 8050


@pytest.fixture(scope="module")
def model() -> NllbModel:
    return NllbModel(read_checkpoint(DEMO_FOLDER), "float32", DEVICE)


@pytest.fixture(scope="module")
def cpu_model() -> NllbModel:
    return NllbModel(read_checkpoint(DEMO_FOLDER), "float32", torch.device("cpu"))


def _runner(model: NllbModel, num_blocks: int = 96, lanes: int = 48) -> GpuRunner:
    runner = GpuRunner(model, num_blocks, BLOCK, max_num_lanes=lanes, max_num_beams=8, max_positions=POSITIONS)
    # what was never written must never be read: any use of it shows as NaN
    runner.cache.keys.fill_(torch.nan)
    runner.cache.values.fill_(torch.nan)
    return runner


def _started(
    seq_id: int,
    first_block: int,
    *,
    source: tuple[int, ...] = SOURCE,
    target: int = TARGET,
    beams: int = 4,
    max_length: int = 24,
    resumed: bool = False,
) -> StartedSequence:
    params = SearchParams(num_beams=beams, max_length=max_length)
    first_own = first_block + 2
    own = tuple(range(first_own, first_own + -(-beams * max_length // BLOCK)))
    request = SequenceRequest(seq_id, source, target, params, 0.0)
    return StartedSequence(request, (first_block, first_block + 1), own, resumed)


def _run(runner: Runner, plans: Iterator[StepPlan]) -> Iterator[tuple[int, FinishedSequence]]:
    for plan in plans:
        yield from ((plan.step, item) for item in runner.execute(plan).finished)


def _until_idle(runner: GpuRunner, first_step: int = 1) -> dict[int, FinishedSequence]:
    plans = (StepPlan(step) for step in range(first_step, first_step + 200))
    done = {}
    for _, item in _run(runner, plans):
        done[item.seq_id] = item
        if not runner.live:
            break
    return done


def _ids(finished: FinishedSequence) -> list[tuple[int, ...]]:
    return [hypothesis.token_ids for hypothesis in finished.hypotheses]


@pytest.fixture(scope="module")
def short(model: NllbModel) -> tuple[tuple[int, ...], int]:
    """A source whose translation ends by itself, and the step (from 0) in which the CPU's runner says so."""
    request = next(it for it in make_requests(20, 0, seed=3) if len(it.source_ids) < 20)
    plain = ModelRunner(NllbModel(read_checkpoint(DEMO_FOLDER), "float32", torch.device("cpu")), 96, BLOCK)
    plans = iter([StepPlan(0, started=(_started(1, 0, source=request.source_ids, max_length=60),))])
    done = list(_run(plain, plans))
    step = 0
    while not done:
        step += 1
        done = list(_run(plain, iter([StepPlan(step)])))
    assert not done[0][1].truncated
    return request.source_ids, step


def test_results_come_a_step_late(model: NllbModel, short: tuple[tuple[int, ...], int]) -> None:
    source, last = short
    runner = _runner(model)
    first = StepPlan(0, started=(_started(1, 0, source=source, max_length=60),))
    steps = [step for step, _ in _run(runner, (first, *(StepPlan(n) for n in range(1, last + 4))))]
    assert steps == [last + 1]


def test_what_ends_by_its_length_is_reported_at_once(model: NllbModel) -> None:
    runner = _runner(model)
    first = StepPlan(0, started=(_started(1, 0, max_length=6),))
    found = list(_run(runner, (first, *(StepPlan(n) for n in range(1, 8)))))
    assert [step for step, _ in found] == [3]  # lengths 2, 3, 4 and 5 before the steps
    assert found[0][1].truncated
    assert len(_ids(found[0][1])[0]) == 5


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 8])
def test_the_same_as_the_runner_of_the_cpu(model: NllbModel, cpu_model: NllbModel, beams: int) -> None:
    plain = ModelRunner(cpu_model, 96, BLOCK)
    plain.execute(StepPlan(0, started=(_started(1, 0, beams=beams),)))
    done = {}
    while len(plain.batch):
        done.update((item.seq_id, item) for item in plain.execute(StepPlan(1)).finished)
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 30, beams=beams),)))
    found = _until_idle(runner)
    assert _ids(found[1]) == _ids(done[1])
    assert found[1].hypotheses[0].score == pytest.approx(done[1].hypotheses[0].score, abs=1e-5)


@pytest.mark.parametrize("pause_after", [0, 1, 3, 8])
def test_preemption_changes_nothing(model: NllbModel, pause_after: int) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0),)))
    expected = _until_idle(runner)[1]
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0), _started(2, 20, beams=1))))
    for step in range(pause_after):
        runner.execute(StepPlan(step + 1))
    runner.execute(StepPlan(50, preempted=(1,)))
    assert list(runner.live) in ([2], [])
    runner.cache.keys[:, : 20 * BLOCK] = torch.nan  # its blocks go to somebody else
    runner.execute(StepPlan(51, started=(_started(1, 40, resumed=True),)))
    assert _ids(_until_idle(runner, 52)[1]) == _ids(expected)
    assert not runner.suspended


def test_preempted_in_the_step_after_its_end(model: NllbModel, short: tuple[tuple[int, ...], int]) -> None:
    """Nobody has been told of the end yet: that happens when the sequence starts again, and nothing is computed."""
    source, last = short
    runner = _runner(model)
    plan = StepPlan(0, started=(_started(1, 0, source=source, max_length=60), _started(2, 40, max_length=40)))
    early = list(_run(runner, (plan, *(StepPlan(n) for n in range(1, last + 1)))))
    assert not early
    result = runner.execute(StepPlan(last + 1, preempted=(1,)))
    assert [item.seq_id for item in result.finished] == []
    assert list(runner.live) == [2]
    again = _started(1, 20, source=source, max_length=60, resumed=True)
    (found,) = runner.execute(StepPlan(last + 2, started=(again,))).finished
    assert (found.seq_id, found.truncated) == (1, False)
    assert not runner.suspended


@pytest.mark.parametrize("how", ["released", "released and preempted"])
def test_released_in_the_step_after_its_end(model: NllbModel, short: tuple[tuple[int, ...], int], how: str) -> None:
    source, last = short
    runner = _runner(model)
    plan = StepPlan(0, started=(_started(1, 0, source=source, max_length=60), _started(2, 40, max_length=40)))
    assert not list(_run(runner, (plan, *(StepPlan(n) for n in range(1, last + 1)))))
    preempted = (2,) if "preempted" in how else ()
    assert runner.execute(StepPlan(last + 1, released=(1,), preempted=preempted)).finished == ()
    assert 1 not in runner.live


def test_an_id_that_comes_again_at_once_is_another_sequence(model: NllbModel) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0, max_length=20),)))
    runner.execute(StepPlan(1, released=(1,), started=(_started(1, 20, max_length=9),)))
    assert len(_ids(_until_idle(runner, 2)[1])[0]) == 8


def test_released_sequences_are_forgotten_running_or_suspended(model: NllbModel) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0), _started(2, 20))))
    runner.execute(StepPlan(1, preempted=(2,)))
    runner.execute(StepPlan(2, released=(1, 2)))
    assert not runner.live
    assert not runner.suspended


def test_no_room_after_the_language_code(model: NllbModel) -> None:
    (done,) = _runner(model).execute(StepPlan(0, started=(_started(1, 0, max_length=2),))).finished
    assert (done.truncated, done.hypotheses[0].token_ids) == (True, (TARGET,))


def test_what_the_buffers_cannot_hold_fails_alone(model: NllbModel) -> None:
    runner = _runner(model)
    long_source = (8001, *[300] * POSITIONS, 2)
    odd = (
        _started(1, 0, max_length=POSITIONS + 1),
        _started(2, 0, source=long_source),
        _started(3, 0, beams=9),
        _started(4, 0, source=(8001, 300_000, 2)),
        _started(5, 0, target=-1),
    )
    failed = runner.execute(StepPlan(0, started=(*odd, _started(6, 0, max_length=8)))).failed
    assert [seq_id for seq_id, _ in failed] == [1, 2, 3, 4, 5]
    words = ("max_length is 129", "the source has 130", "num_beams is 9", "token id 300000", "token id -1")
    assert all(word in reason for word, (_, reason) in zip(words, failed, strict=True))
    assert list(_until_idle(runner)) == [6]


def test_reset_forgets_everything_and_the_runner_goes_on(model: NllbModel) -> None:
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0),)))
    expected = _until_idle(runner)[1]
    runner.execute(StepPlan(0, started=(_started(2, 0), _started(3, 20))))
    runner.reset()
    assert not runner.live
    runner.execute(StepPlan(1, started=(_started(4, 0),)))
    assert _ids(_until_idle(runner, 2)[4]) == _ids(expected)


def test_a_lost_device_is_fatal_and_lack_of_memory_is_not(model: NllbModel, monkeypatch) -> None:
    runner = _runner(model)
    plan = StepPlan(0, started=(_started(1, 0),))
    for error, expected in (
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), FatalRunnerError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ):

        def fail(*_args: object, error: Exception = error, **_kwargs: object) -> None:
            raise error

        monkeypatch.setattr(runner.network, "decode", fail)
        with pytest.raises(expected) as raised:
            runner.execute(plan)
        assert type(raised.value) is expected
        runner.reset()


def test_warm_up_leaves_no_trace(model: NllbModel) -> None:
    runner = _runner(model, lanes=4)
    runner.warm_up()
    assert runner.cache.keys.isnan().all()
    assert runner.fused_rows in (0, 1, 2, 4, 8)
    runner.execute(StepPlan(0, started=(_started(1, 0, beams=3, max_length=9),)))
    found = _until_idle(runner)
    runner = _runner(model)
    runner.execute(StepPlan(0, started=(_started(1, 0, beams=3, max_length=9),)))
    assert _ids(found[1]) == _ids(_until_idle(runner)[1])


def _compare(ours: Engine, theirs: Engine, requests: list[SequenceRequest], seed: int) -> None:
    expected = run_engine(theirs, requests, seed)
    found = run_engine(ours, requests, seed)
    for request in requests:
        mine, other = found[request.seq_id], expected[request.seq_id]
        assert mine.reason is other.reason
        assert mine.hypotheses[0].token_ids == other.hypotheses[0].token_ids
        assert mine.hypotheses[0].score == pytest.approx(other.hypotheses[0].score, abs=1e-4)


def test_mixed_sequences_under_the_engine_with_preemptions(model: NllbModel) -> None:
    requests = [it for it in make_requests(24, 0, seed=1) if len(it.source_ids) < POSITIONS][:20]
    ours, theirs = small_engine("float32", 40), small_engine("float32", 40)
    runner = _runner(model, num_blocks=40)
    ours.runner = runner
    _compare(ours, theirs, requests, seed=1)
    assert ours.stats.preemptions > 0
    assert not runner.live
    assert not runner.suspended


def test_aborts_under_the_engine(model: NllbModel) -> None:
    requests = [it for it in make_requests(24, 0, seed=5) if len(it.source_ids) < POSITIONS][:16]
    plain = run_engine(small_engine("float32", 60), requests, seed=5)
    engine = small_engine("float32", 60)
    runner = _runner(model, num_blocks=60)
    engine.runner = runner
    rng = random.Random(5)
    outcomes = {}
    engine.add(requests)
    while engine.has_work:
        outcomes.update((outcome.seq_id, outcome) for outcome in engine.step())
        if rng.random() < 0.3:
            engine.abort([rng.choice(requests).seq_id])
        engine.check_integrity()
    assert len(outcomes) == len(requests)
    served = [seq_id for seq_id, outcome in outcomes.items() if outcome.hypotheses]
    assert 0 < len(served) < len(requests)
    for seq_id in served:
        assert outcomes[seq_id].hypotheses[0].token_ids == plain[seq_id].hypotheses[0].token_ids
    assert not runner.live


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1" and DEVICE.type == "cuda", reason="kernels interpreted")
def test_the_kernels_of_the_gpu_in_the_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny random model, so that the interpreter gets through it; reference kernels say what is right."""
    from tests.model.random_checkpoint import write_checkpoint

    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), d_model=32, heads=2, ffn=48, layers=1, vocab=260)
    tiny = NllbModel(read_checkpoint(folder), "float32", DEVICE)
    results = []
    for kernels in (reference_kernels(), triton_kernels()):
        runner = GpuRunner(tiny, 64, BLOCK, max_num_lanes=12, max_num_beams=4, max_positions=40, kernels=kernels)
        runner.cache.keys.fill_(torch.nan)
        runner.cache.values.fill_(torch.nan)
        found: dict[int, FinishedSequence] = {}
        first = {"source": (250, 5, 6, 2), "target": 240, "beams": 3, "max_length": 9}
        second = {"source": (250, *range(9, 39)), "target": 241, "beams": 1, "max_length": 8}
        plans = [
            StepPlan(0, started=(_started(1, 0, **first),)),
            StepPlan(1, started=(_started(2, 20, **second),)),
            StepPlan(2, preempted=(1,)),
            StepPlan(3, started=(_started(1, 40, resumed=True, **first),)),
            *(StepPlan(step) for step in range(4, 14)),
        ]
        found.update((item.seq_id, item) for _, item in _run(runner, iter(plans)))
        results.append({seq_id: _ids(item) for seq_id, item in found.items()})
    assert results[0] == results[1]
    assert sorted(results[0]) == [1, 2]
