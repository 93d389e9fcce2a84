"""Who takes part in an offline benchmark, and how each runs at its best: in its own form, batches tried out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import common
from bench.child import Child, Spec
from bench.common import figure
from bench.contestants import Job
from bench.peers import convert_for_ctranslate2, quantize_for_nllbd
from bench.sweep import Best, remembered, sweep, tuned

TRANSFORMERS_BATCHES = (8, 16, 32)


@dataclass(frozen=True)
class Entrant:
    """A contestant with its way to run: `specs` and `ways` by number of beams (the best may differ), `alone_specs` for
    one sentence at a time.

    `places`: indices of the jobs that it translates in a round; slow ones get a sample, even in length.
    """

    label: str
    specs: Mapping[int, Spec]
    alone_specs: Mapping[int, Spec]
    ways: Mapping[int, Mapping[str, Any]]
    places: Sequence[int]
    tried: Sequence[str] = ()


def make_spec(name: str, model: Path, cache_dir: Path, threads: int, device: str) -> Spec:
    """`nllbd:int8`, `ctranslate2:float32`, `transformers:float16@cuda` → its spec; its form of the model is made.

    Raises ValueError for another name.
    """
    what, _, where = name.partition("@")
    kind, _, precision = what.partition(":")
    device = where or ("cpu" if kind == "ctranslate2" else device)
    label = f"{kind} {precision}" + ("" if device == "cpu" else f" {device}")
    if kind == "ctranslate2":
        model = convert_for_ctranslate2(model, precision, cache_dir)
    elif kind == "nllbd" and precision == "int8":
        model = quantize_for_nllbd(model, cache_dir)
    elif kind not in {"nllbd", "transformers"}:
        raise ValueError(f"{name!r}: a contestant is nllbd, ctranslate2 or transformers, as in nllbd:int8")
    return Spec(label, kind, model, precision, threads, device)


def enter(
    spec: Spec,
    jobs: Sequence[Job],
    places: Sequence[int],
    beams: Sequence[int],
    max_length: int,
    *,
    quick: bool,
    memory: Path | None = None,
) -> Entrant:
    """The entrant of `spec` at its best on its own jobs. `memory`: a file that keeps what CTranslate2's sweep found."""
    own = [jobs[place] for place in places]
    if spec.kind == "ctranslate2":
        is_short = quick or spec.precision != "int8"
        about = {"jobs": own, "beams": list(beams), "max_length": max_length, "short": is_short}
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        key = {"label": spec.label, "model": spec.model.name, "threads": spec.threads, "sweep": digest}
        key |= {"hardware": common.hardware(), "ctranslate2": version("ctranslate2")}
        best = remembered(memory, key, lambda: sweep(spec, own, beams, max_length, quick=is_short))
        return Entrant(
            spec.label,
            {width: tuned(spec, best.trials[width]) for width in beams},
            {width: tuned(spec, best.alone[width]) for width in beams},
            {width: best.trials[width].how for width in beams},
            places,
            _told(best),
        )
    same = dict.fromkeys(beams, spec)
    if spec.kind == "transformers":
        ways, tried = _transformers_batches(spec, own, beams, max_length, TRANSFORMERS_BATCHES[:1] if quick else None)
        return Entrant(spec.label, same, same, ways, places, tried)
    return Entrant(spec.label, same, same, {width: {} for width in beams}, places)


def _told(best: Best) -> list[str]:
    return [*map(str, best.tried), *(f"best: {trial}" for trial in (*best.trials.values(), *best.alone.values()))]


def _transformers_batches(
    spec: Spec, jobs: Sequence[Job], beams: Sequence[int], max_length: int, sizes: Sequence[int] | None
) -> tuple[dict[int, dict[str, int]], list[str]]:
    """The best static batch for each number of beams; a size beyond the number of jobs is the whole lot."""
    sizes = [size for size in sizes or TRANSFORMERS_BATCHES if size <= len(jobs)] or [len(jobs)]
    if len(sizes) == 1:
        return {width: {"batch_size": sizes[0]} for width in beams}, []
    speeds: dict[tuple[int, int], float] = {}
    with Child(spec) as child:
        child.translate(jobs[:2], 1, max_length, {"batch_size": 2})
        for width, size in itertools.product(beams, sizes):
            reply = child.translate(jobs, width, max_length, {"batch_size": size})
            speeds[width, size] = sum(map(len, reply.outputs)) / reply.seconds
            print(f"  {spec.label} beam {width}: {figure(speeds[width, size]):>6} tokens/s, batches of {size}")
    ways = {width: {"batch_size": max(sizes, key=lambda size: speeds[width, size])} for width in beams}
    return ways, [f"beam {width}, batches of {size}: {speed:.1f} tokens/s" for (width, size), speed in speeds.items()]
