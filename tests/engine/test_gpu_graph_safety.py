"""What a CUDA graph demands, checked without one: under one key the same launches on the same tensors, and no waiting.

A replay repeats what was recorded, whatever Python would decide by then; a difference would be a wrong translation.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nllbd.checkpoint import read_checkpoint
from nllbd.engine.gpu_runner import GpuRunner
from nllbd.kernels.dispatch import Kernels, triton_kernels
from nllbd.model.nllb import NllbModel
from nllbd.sched.plan import StartedSequence, StepPlan
from nllbd.sched.sequence import SearchParams, SequenceRequest
from tests.kernels.interpreter import use_interpreter
from tests.model.random_checkpoint import write_checkpoint

pytest.importorskip("triton")
use_interpreter()
BLOCK = 4
#: Operations whose result's shape or value the host must wait for.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "repeat_interleave")


class NoWaiting(TorchDispatchMode):
    """Raises at an operation that waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING or (name == "index" and any(t is not None and t.dtype is torch.bool for t in args[1])):
            raise AssertionError(f"a step waits for the device: {func}")
        return func(*args, **(kwargs or {}))


class Recorder:
    """Stands in for the graphs: runs everything, and compares what each use of a key launches with the first."""

    def __init__(self) -> None:
        self.known: dict[Hashable, list[Any]] = {}
        self.uses: dict[Hashable, int] = {}
        self.lasting: set[int] = set()
        self.launched: list[Any] = []

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        self.launched = []
        function()
        self.uses[key] = self.uses.get(key, 0) + 1
        assert self.known.setdefault(key, self.launched) == self.launched, key

    def watch(self, kernels: Kernels) -> Kernels:
        changes = {
            field.name: self._watched(field.name, getattr(kernels, field.name))
            for field in dataclasses.fields(kernels)
            if field.name != "name"
        }
        return dataclasses.replace(kernels, **changes)

    def _watched(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.launched.append((name, self._sight(args), self._sight(kwargs)))
            return kernel(*args, **kwargs)

        return call

    def _sight(self, value: Any) -> Any:
        """What a recording would keep of an argument: shapes always, places of tensors that outlive the step."""
        if isinstance(value, Tensor):
            place = value.data_ptr() if value.untyped_storage().data_ptr() in self.lasting else None
            return tuple(value.shape), value.stride(), value.dtype, place
        if dataclasses.is_dataclass(value):
            return [self._sight(getattr(value, field.name)) for field in dataclasses.fields(value)]
        if isinstance(value, dict):
            return {key: self._sight(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._sight(item) for item in value]
        return value


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> NllbModel:
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"), d_model=32, heads=2, ffn=48, layers=1, vocab=200)
    return NllbModel(read_checkpoint(folder), "float32", torch.device("cpu"))


def _runner(model: NllbModel, kernels: Kernels) -> GpuRunner:
    return GpuRunner(model, 200, BLOCK, max_num_lanes=12, max_num_beams=4, max_positions=24, kernels=kernels)


def _started(seq_id: int, beams: int, max_length: int, source_tokens: int = 3) -> StartedSequence:
    request = SequenceRequest(
        seq_id, (150, *range(5, 3 + source_tokens), 2), 140, SearchParams(beams, max_length=max_length), 0.0
    )
    first = seq_id * 32
    return StartedSequence(request, tuple(range(first, first + 6)), tuple(range(first + 6, first + 30)))


def _plans() -> list[StepPlan]:
    """Sequences come and go, in slots that are used again, so that the same shapes return with other contents."""
    starts = {
        0: (_started(0, 3, 8),),
        3: (_started(1, 1, 6), _started(2, 1, 14, source_tokens=9)),
        9: (_started(3, 3, 7, source_tokens=5), _started(4, 1, 5)),
    }
    return [StepPlan(step, started=starts.get(step, ())) for step in range(20)]


def test_a_key_always_means_the_same_launches(tiny: NllbModel) -> None:
    recorder = Recorder()
    runner = _runner(tiny, recorder.watch(triton_kernels()))
    runner.graphs = recorder  # type: ignore[assignment]
    batch = runner._batch
    lasting = [*batch.columns.values(), batch._blocks, runner.cache.keys, runner.cache.values, tiny.embedding]
    recorder.lasting = {tensor.untyped_storage().data_ptr() for tensor in lasting}
    ended = [item.seq_id for plan in _plans() for item in runner.execute(plan).finished]
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert sum(count > 1 for count in recorder.uses.values()) >= 3


def test_nothing_recorded_waits_for_the_device(tiny: NllbModel) -> None:
    runner = _runner(tiny, _silent(triton_kernels()))

    class Guarded:
        def run(self, key: Hashable, function: Callable[[], None]) -> None:
            with NoWaiting():
                function()

    runner.graphs = Guarded()  # type: ignore[assignment]
    for plan in _plans()[:6]:
        runner.execute(plan)


def test_the_guard_knows_what_waits() -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        torch.ones(3).nonzero()
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        int(torch.ones(1))
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        torch.ones(3)[torch.ones(3, dtype=torch.bool)]


def _silent(kernels: Kernels) -> Kernels:
    """The kernels with the guard lifted inside them: the interpreter reads tensors on the host, the GPU does not."""

    def lifted(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with torch.utils._python_dispatch._disable_current_modes():
                return kernel(*args, **kwargs)

        return call

    changes = {
        field.name: lifted(getattr(kernels, field.name))
        for field in dataclasses.fields(kernels)
        if field.name != "name"
    }
    return dataclasses.replace(kernels, **changes)
