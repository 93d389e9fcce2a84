"""Speed on an NVIDIA GPU: a decode step against the roofline, and all of it against transformers.

    python -m bench.gpu                                  # about five minutes on an H200; bench/gpu.sh runs tests first
    python -m bench.gpu --shapes 600M --seconds 120
    python -m bench.gpu --shapes demo --lanes 1 4 --sentences 64     # does it run at all?

Roofline: the bytes that a step must read (decoder weights, vocabulary matrix, KV of what is decoded) over the bandwidth
measured in the same run; where many lanes make arithmetic the limit, the larger of that and FLOPs over the measured
peak. A step's time is that of its CUDA graph; `engine` figures are wall-clock, planning and everything included.
transformers: `generate()` on the same GPU in the same precision, its best static batch size by sweep, sorted by length.

Exit status 3 and no result file where there is no CUDA device. Written to --output, else $OUT, else bench/results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import common, corpus, widen
from bench.contestants import Call, Job, Nllbd, Transformers
from bench.gpu_steps import measure_ceilings, measure_steps
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.tokenizer import Tokenizer

NO_DEVICE = 3
PAIRS = "eng_Latn-fra_Latn,fra_Latn-eng_Latn,eng_Latn-deu_Latn,eng_Latn-spa_Latn"
MAX_LENGTH = 128
ROUNDS = 3
TRANSFORMERS_BATCHES = (32, 128, 512)
TRANSFORMERS_SHARE = 4  # transformers gets so much less text in the sweep, being so much slower


@dataclass(frozen=True)
class Clock:
    """What is left of the time allowed; a phase that may not fit is skipped by name, so that a result is written."""

    ends: float

    @property
    def left_s(self) -> float:
        return self.ends - time.monotonic()


class Report:
    """Results as they come, so that what was measured before a failure is kept."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.results: dict[str, Any] = {"skipped": [], "failed": {}}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A failure is written down and ends this phase only."""
        begin = time.monotonic()
        try:
            yield
        except Exception as error:  # whatever it is, the other phases may still tell something
            self.results["failed"][name] = f"{type(error).__name__}: {error}"
            print(f"{name} FAILED: {type(error).__name__}: {error}", flush=True)
        print(f"{name}: {time.monotonic() - begin:.0f} s, {self.clock.left_s:.0f} s left", flush=True)

    def fits(self, name: str, needs_s: float) -> bool:
        if self.clock.left_s >= needs_s:
            return True
        self.results["skipped"].append(f"{name}: {self.clock.left_s:.0f} s were left, {needs_s:.0f} wanted")
        print(f"{name}: skipped, out of time", flush=True)
        return False


def main() -> int:
    options = _arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return NO_DEVICE
    report = Report(Clock(time.monotonic() + options.seconds))
    print(common.headline({"shapes": options.shapes, "dtype": options.dtype}), flush=True)
    making = _start_widening(options)
    try:
        with report.phase("ceilings"):
            report.results["ceilings"] = measure_ceilings(torch.device(options.device), options.dtype)
        if report.fits("exactness", 60):
            with report.phase("exactness"):
                report.results["exactness"] = _exactness(options)
        for shape in options.shapes:
            _measure_shape(shape, options, report, making)
    finally:
        for process in making.values():
            process.terminate()
        name = "gpu" if options.device == "cuda" else "gpu-on-cpu"  # the latter says nothing of speed
        common.save(name, vars(options), report.results, options.output)
    return int(bool(report.results["failed"]))


def _start_widening(options: argparse.Namespace) -> dict[str, subprocess.Popen[bytes]]:
    """All checkpoints are made beside the first phases."""
    command = [sys.executable, "-m", "bench.widen", "--dtype", options.dtype, "--cache-dir", str(options.cache_dir)]
    return {shape: subprocess.Popen([*command, shape]) for shape in options.shapes if shape in widen.SHAPES}


def _exactness(options: argparse.Namespace) -> dict[str, Any]:
    """The demonstration model: float32 against transformers, lower precision against float32 and against alone."""
    from bench.exactness import alone, compare, make_requests, run_engine

    requests = make_requests(options.exact, options.exact // 10, seed=0)
    engine = _engine(DEMO_FOLDER, "float32", options, kv_cache_bytes=96 << 16, max_num_lanes=48)
    outcomes = run_engine(engine, requests, seed=0)
    differences = compare(requests, outcomes)
    ties = sum(difference.is_near_tie for difference in differences)
    for difference in differences:
        print(difference, flush=True)
    found: dict[str, Any] = {
        "sequences": len(requests),
        "preemptions": engine.stats.preemptions,
        "equal_to_transformers": len(requests) - len(differences),
        "near_ties": ties,
        "different": len(differences) - ties,
    }
    if options.dtype != "float32":
        low = _engine(DEMO_FOLDER, options.dtype, options, max_num_lanes=256)
        batched = {key: outcome.hypotheses[0].token_ids for key, outcome in run_engine(low, requests, seed=0).items()}
        exact = {key: outcome.hypotheses[0].token_ids for key, outcome in outcomes.items()}
        found[options.dtype] = {
            "equal_to_float32": sum(batched[key] == exact[key] for key in exact),
            "equal_to_alone": sum(batched[request.seq_id] == alone(low, request) for request in requests),
        }
    print(found, flush=True)
    if found["different"]:
        raise AssertionError(f"{found['different']} outputs in float32 are not those of transformers")
    return found


def _measure_shape(
    shape: str, options: argparse.Namespace, report: Report, making: dict[str, subprocess.Popen[bytes]]
) -> None:
    if not report.fits(shape, 45):
        return
    if shape in making and making[shape].wait() != 0:
        report.results["failed"][shape] = "the checkpoint could not be made"
        return
    folder = DEMO_FOLDER if shape == "demo" else widen.cached(shape, options.cache_dir, dtype=options.dtype)
    made = report.results[shape] = {}
    tokenizer = Tokenizer(read_checkpoint(folder))
    chosen = corpus.sentences(options.sentences, corpus.directions(PAIRS), seed=0)
    jobs = [(tokenizer.encode(item.text, item.source), tokenizer.language_id(item.target)) for item in chosen]
    with report.phase(f"{shape} steps"):
        engine = _engine(folder, options.dtype, options)
        made["load_s"] = engine.info.load_s
        made["kernels for few rows up to"] = engine.runner.fused_rows  # type: ignore[attr-defined]
        ceilings = report.results["ceilings"]
        made["steps"] = measure_steps(engine, jobs, options.lanes, ceilings, report.clock.ends - 20)
        del engine
        _empty_cache()
    if report.fits(f"{shape} against transformers", 40):
        with report.phase(f"{shape} against transformers"):
            _against_transformers(folder, jobs, options, report.clock, made)
            _empty_cache()


def _against_transformers(
    folder: Path, jobs: Sequence[Job], options: argparse.Namespace, clock: Clock, made: dict[str, Any]
) -> None:
    """Both on the device at once, rounds in turn, so that what slows one slows the other."""
    spec = {"model": str(folder), "device": options.device, "precision": options.dtype, "threads": 0, "settings": {}}
    if options.device == "cpu":
        spec["settings"] = {"runner": "gpu"}
    ours, theirs = Nllbd(), Transformers()
    theirs.load({**spec, "threads": os.cpu_count() or 1})
    ours.load({**spec, "settings": {**spec["settings"], "kv_cache_bytes": options.kv_bytes}})
    few = jobs[: max(1, len(jobs) // TRANSFORMERS_SHARE)]
    for beams in (1, 4):
        best = _best_batch(theirs, few, beams)
        calls = {
            "nllbd": ours.prepare(jobs, beams, MAX_LENGTH, {}),
            "transformers": theirs.prepare(few, beams, MAX_LENGTH, {"batch_size": best["batch_size"]}),
        }
        _rate(calls["nllbd"])  # graphs are recorded here
        rates: dict[str, list[float]] = {"nllbd": [], "transformers": []}
        while len(rates["nllbd"]) < ROUNDS and clock.left_s > 15:
            for name, call in calls.items():
                rates[name].append(_rate(call))
        if not rates["nllbd"]:
            made[f"beams {beams}"] = "out of time"
            continue
        made[f"beams {beams}"] = {
            "transformers_sweep": best["sweep"],
            "tokens_per_s": {name: common.spread(samples) for name, samples in rates.items()},
            "ratio": common.ratio(rates["nllbd"], rates["transformers"]),
        }
        print(f"beams {beams}: {made[f'beams {beams}']}", flush=True)


def _best_batch(theirs: Transformers, jobs: Sequence[Job], beams: int) -> dict[str, Any]:
    """transformers' best static batch: the rate of each on the same sentences."""
    sweep = {}
    for size in TRANSFORMERS_BATCHES:
        try:
            call = theirs.prepare(jobs[: max(size, len(jobs) // 2)], beams, MAX_LENGTH, {"batch_size": size})
            sweep[size] = _rate(call)
        except torch.OutOfMemoryError:
            _empty_cache()
    return {"sweep": sweep, "batch_size": max(sweep, key=lambda size: sweep[size])}


def _rate(call: Call | Callable[[], list[list[int]]]) -> float:
    """Target tokens a second."""
    begin = time.perf_counter()
    outputs = call()
    return sum(map(len, outputs)) / (time.perf_counter() - begin)


def _engine(folder: Path, precision: str, options: argparse.Namespace, **changes: Any) -> Any:
    from nllbd.bridge.protocol import EngineConfig
    from nllbd.engine.build import build_engine

    settings: dict[str, Any] = {"kv_cache_bytes": options.kv_bytes, "max_num_lanes": max(*options.lanes, 16), **changes}
    return build_engine(
        EngineConfig(
            model_path=str(folder),
            device=options.device,
            dtype=precision,
            max_waiting_segments=1 << 40,
            max_waiting_tokens=1 << 40,
            runner="gpu",
            **settings,
        )
    )


def _empty_cache() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["600M", "1.3B"], choices=[*widen.SHAPES, "demo"])
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--lanes", nargs="+", type=int, default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--sentences", type=int, default=4096)
    parser.add_argument("--exact", type=int, default=200, help="sentences for the exactness phase")
    parser.add_argument("--seconds", type=float, default=330.0, help="time allowed for everything")
    parser.add_argument("--kv-bytes", type=int, default=16 << 30, help="KV pool of an engine")
    parser.add_argument("--cache-dir", type=Path, default=widen.DEFAULT_CACHE)
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or common.RESULTS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: only to see that it runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
