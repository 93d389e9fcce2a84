"""The sweep finds the best way, told from made-up speeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import sweep
from bench.child import Reply, Spec
from bench.contestants import Job

SPEC = Spec("peer", "ctranslate2", Path("model"), "int8", threads=2)
JOBS: list[Job] = [((1, 2, 3), 4)] * 32


class FakeChild:
    """Fastest on oneDNN, workers apart, in batches of 512 tokens; one sentence alone with the threads together."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def __enter__(self) -> "FakeChild":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def translate(self, jobs: Sequence[Job], beams: int, max_length: int, how: Mapping[str, Any]) -> Reply:
        del max_length
        seconds = float(len(jobs) * beams)
        seconds *= 1 if self._spec.environ.get("CT2_USE_MKL") == "0" else 2
        is_together = self._spec.settings["inter_threads"] == 1
        if how == sweep.ALONE:
            seconds *= 1 if is_together else 1.5
        else:
            seconds *= 1.5 if is_together else 1
            seconds *= 1 if (how["batch_type"], how["max_batch_size"]) == ("tokens", 512) else 1.2
            seconds *= 1 if how["mode"] == "batch" else 1.1
        return Reply(seconds, [[5, 2]] * len(jobs), 0, 0)


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Child", FakeChild)


def test_the_best_of_everything_is_found() -> None:
    best = sweep.sweep(SPEC, JOBS, [1, 4], 64, tell=lambda line: None)
    for beams in (1, 4):
        spec = sweep.tuned(SPEC, best.trials[beams])
        assert spec.environ == {"CT2_USE_MKL": "0"}
        assert spec.settings == {"inter_threads": 2, "intra_threads": 1}
        assert best.trials[beams].how == {"batch_type": "tokens", "max_batch_size": 512, "mode": "batch"}
        assert sweep.tuned(SPEC, best.alone[beams]).settings == {"inter_threads": 1, "intra_threads": 2}
    assert {trial.backend for trial in best.tried} == set(sweep.BACKENDS)
    assert {trial.how.get("mode") for trial in best.tried} == {"batch", "iterable", None}
    assert all("tokens/s" in str(trial) for trial in best.tried)


def test_a_quick_sweep_keeps_to_the_default_backend() -> None:
    best = sweep.sweep(SPEC, JOBS, [1], 64, quick=True, tell=lambda line: None)
    assert {trial.backend for trial in best.tried} == {sweep.DEFAULT_BACKEND}


def test_the_backend_alone_can_be_asked_for() -> None:
    assert sweep.best_backend(SPEC, JOBS, 4, 64) == "oneDNN"


def test_what_a_sweep_found_is_taken_from_its_file(tmp_path: Path) -> None:
    trial = sweep.Trial("MKL", {"inter_threads": 2, "intra_threads": 1}, {"alone": True}, 4, 12.5)
    best = sweep.Best({4: trial}, {4: trial}, [trial, trial])
    calls: list[int] = []

    def make() -> sweep.Best:
        calls.append(1)
        return best

    file = tmp_path / "folder" / "sweeps.json"
    assert sweep.remembered(file, {"label": "a"}, make) == best
    assert sweep.remembered(file, {"label": "a"}, make) == best
    assert len(calls) == 1
    assert sweep.remembered(file, {"label": "b"}, make) == best
    assert sweep.remembered(None, {"label": "a"}, make) == best
    assert len(calls) == 3
