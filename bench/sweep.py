"""How CTranslate2 runs best here: its backend, threads and batches, tried out before it is measured.

Everything its own guide to performance recommends is tried: int8, several workers of one thread against one worker of
several, batches by number of sentences and by tokens, all sentences handed in at once (it sorts them by length and
feeds its workers in parallel) and its asynchronous streaming; MKL with packed weights (its default on Intel), with AMX
asked for, without packing, and oneDNN in place of MKL. What its guide also names but a general server cannot use: a
vocabulary reduced in advance.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.child import Child, Spec
from bench.common import figure
from bench.contestants import Job

DEFAULT_BACKEND = "MKL, packed"
BACKENDS: Mapping[str, Mapping[str, str]] = {
    DEFAULT_BACKEND: {},
    "MKL, packed, AMX": {"MKL_ENABLE_INSTRUCTIONS": "AVX512_E4"},
    "MKL": {"CT2_PACKED_GEMM": "0"},
    "oneDNN": {"CT2_USE_MKL": "0"},
}
ALONE = {"alone": True}
NUM_ALONE = 6
FIRST_BATCH = {"batch_type": "examples", "max_batch_size": 16, "mode": "batch"}  # small: each worker gets several
BATCHES = (
    *({"batch_type": "examples", "max_batch_size": size, "mode": "batch"} for size in (16, 32, 64, 128)),
    *({"batch_type": "tokens", "max_batch_size": size, "mode": "batch"} for size in (512, 1024, 2048)),
)


@dataclass(frozen=True)
class Trial:
    """One way to run CTranslate2, and the target tokens a second it gave."""

    backend: str
    settings: Mapping[str, int]
    how: Mapping[str, Any]
    beams: int
    tokens_per_s: float

    def __str__(self) -> str:
        how = "one by one" if self.how == ALONE else "{mode} of {max_batch_size} {batch_type}".format(**self.how)
        workers = f"{self.settings['inter_threads']} × {self.settings['intra_threads']} threads"
        return f"beam {self.beams}: {figure(self.tokens_per_s):>6} tokens/s  {self.backend}, {workers}, {how}"


@dataclass(frozen=True)
class Best:
    """The best way for each number of beams, for the whole lot and for one sentence alone, and all that was tried."""

    trials: dict[int, Trial]
    alone: dict[int, Trial]
    tried: list[Trial]


def tuned(spec: Spec, trial: Trial) -> Spec:
    """`spec` with the trial's backend and threads."""
    return replace(spec, settings=trial.settings, environ=BACKENDS[trial.backend])


def remembered(file: Path | None, key: Mapping[str, Any], make: Callable[[], Best]) -> Best:
    """`make()`, or what an earlier run with the same key (machine, versions, jobs) has left in `file`."""
    if file is None:
        return make()
    name = json.dumps(key, sort_keys=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    if name in known:
        print(f"  {key['label']}: as found before, from {file}")
        return _read_best(known[name])
    best = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known | {name: asdict(best)}, indent=1))
    return best


def _read_best(known: Mapping[str, Any]) -> Best:
    """JSON has turned numbers of beams into strings."""
    trials, alone = ({int(k): Trial(**trial) for k, trial in known[name].items()} for name in ("trials", "alone"))
    return Best(trials, alone, [Trial(**trial) for trial in known["tried"]])


def sweep(
    spec: Spec,
    jobs: Sequence[Job],
    beams: Sequence[int],
    max_length: int,
    *,
    quick: bool = False,
    tell: Callable[[str], None] = print,
) -> Best:
    """First heat: every backend and threading, with a common batch on half of the jobs, and on a few one by one; all of
    them twice, for on a shared machine one time alone says little. Second heat, with the best backend of each
    threading: every batch on all jobs, the best few again and through the asynchronous stream. The highest figure
    counts.
    """
    heat, singles = _first_heat(spec, jobs, beams, max_length, quick, tell)
    alone = {width: _fastest(singles, width) for width in beams}
    finalists: dict[tuple[str, tuple[tuple[str, int], ...]], list[int]] = {}
    for width, settings in itertools.product(beams, _thread_settings(spec)):
        best = _fastest([trial for trial in heat if trial.settings == settings], width)
        finalists.setdefault(_place(best), []).append(width)
    final: list[Trial] = []
    for place, wanted in finalists.items():
        backend, settings = place[0], dict(place[1])
        batches = dict.fromkeys(wanted, BATCHES[1:3] if quick else BATCHES)
        final += _try(spec, backend, settings, batches, jobs, max_length, tell)
        here = [trial for trial in final if _place(trial) == place]
        again = {width: _again(here, width, 1 if quick else 2) for width in wanted}
        final += _try(spec, backend, settings, again, jobs, max_length, tell)
    return Best({width: _fastest(final, width) for width in beams}, alone, heat + singles + final)


def _try(
    spec: Spec,
    backend: str,
    settings: Mapping[str, int],
    ways: Mapping[int, Sequence[Mapping[str, Any]]],
    jobs: Sequence[Job],
    max_length: int,
    tell: Callable[[str], None],
) -> list[Trial]:
    """`ways`: beams → batches to try. One process for all of them; its first call is a warm-up."""
    trials = []
    with Child(replace(spec, settings=settings, environ=BACKENDS[backend])) as child:
        child.translate(jobs[:4], 1, max_length, FIRST_BATCH)
        for beams, batches in ways.items():
            for how in batches:
                reply = child.translate(jobs, beams, max_length, how)
                tokens = sum(map(len, reply.outputs))
                trials.append(Trial(backend, settings, how, beams, tokens / reply.seconds))
                tell(f"  {spec.label} {trials[-1]}")
    return trials


def _thread_settings(spec: Spec) -> list[dict[str, int]]:
    """One worker with all threads, and as many workers of one thread; the same total."""
    together = {"inter_threads": 1, "intra_threads": spec.threads}
    apart = {"inter_threads": spec.threads, "intra_threads": 1}
    return [together] if spec.threads == 1 or spec.device != "cpu" else [together, apart]


def _fastest(trials: Sequence[Trial], beams: int) -> Trial:
    return max((trial for trial in trials if trial.beams == beams), key=lambda trial: trial.tokens_per_s)


def best_backend(spec: Spec, jobs: Sequence[Job], beams: int, max_length: int) -> str:
    """The key of BACKENDS that won the first heat."""
    return _fastest(_first_heat(spec, jobs, [beams], max_length, False, print)[0], beams).backend


def _first_heat(
    spec: Spec, jobs: Sequence[Job], beams: Sequence[int], max_length: int, quick: bool, tell: Callable[[str], None]
) -> tuple[list[Trial], list[Trial]]:
    """Every backend and threading: with a common batch, and one by one."""
    backends = [DEFAULT_BACKEND] if quick or spec.device != "cpu" else list(BACKENDS)
    few = jobs if quick else jobs[::2]
    fewest = few[:: -(-len(few) // NUM_ALONE)]
    heat: list[Trial] = []
    singles: list[Trial] = []
    for _, backend, settings in itertools.product(range(1 if quick else 2), backends, _thread_settings(spec)):
        heat += _try(spec, backend, settings, dict.fromkeys(beams, (FIRST_BATCH,)), few, max_length, tell)
        singles += _try(spec, backend, settings, dict.fromkeys(beams, (ALONE,)), fewest, max_length, tell)
    return heat, singles


def _again(trials: Sequence[Trial], beams: int, count: int) -> list[dict[str, Any]]:
    """The best ways once more, and the best one as a stream."""
    best = sorted((trial for trial in trials if trial.beams == beams), key=lambda trial: -trial.tokens_per_s)
    return [*(dict(trial.how) for trial in best[:count]), {**best[0].how, "mode": "iterable"}]


def _place(trial: Trial) -> tuple[str, tuple[tuple[str, int], ...]]:
    return trial.backend, tuple(trial.settings.items())
