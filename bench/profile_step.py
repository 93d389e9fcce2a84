"""Where the time of a step goes, on the CPU in int8: phase by phase of the native passes, and what lies around them.

    python -m bench.profile_step                      # 600M shape; greedy and four beams; full batch and one sentence
    python -m bench.profile_step --beams 4 --lanes 64

The engine runs held-out sentences as it does for callers: the longest ones, as many as fill the batch, and then a few
one by one. Only steps that encode nothing are counted. Beside each phase
with weights: how fast they were read, against the fastest read this machine does (several times as fast as that, where
they come from a cache).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import common, corpus
from bench.micro_kernels import measure_ceilings
from bench.peers import quantize_for_nllbd
from bench.widen import cached
from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import ModelConfig, read_checkpoint
from nllbd.engine.build import build_engine
from nllbd.engine.engine import Engine
from nllbd.engine.runner import ModelRunner
from nllbd.kernels.native.passes import PHASES
from nllbd.sched.sequence import SearchParams, SequenceRequest
from nllbd.text.tokenizer import Tokenizer

FOREVER = 1e12


def weights_of(config: ModelConfig) -> dict[str, int]:
    """Weights that one step reads in each phase, all decoder layers together."""
    square = config.d_model * config.d_model * config.decoder_layers
    ffn = config.d_model * config.decoder_ffn * config.decoder_layers
    return {
        "qkv": 3 * square,
        "self out": square,
        "cross query": square,
        "cross out": square,
        "expand": ffn,
        "contract": ffn,
        "vocabulary": config.vocab_size * config.d_model,
    }


def profile(engine: Engine, requests: Sequence[SequenceRequest], config: ModelConfig) -> dict[str, Any]:
    """Milliseconds of the steps that encode nothing, by phase. Raises RuntimeError where there are no native passes."""
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    if runner.model.passes is None:
        raise RuntimeError("this processor runs no native passes (AVX512-VNNI or AMX)")
    times = runner.model.passes.keep_times()
    phases = torch.zeros_like(times)
    engine.add(requests)
    steps = lanes = 0
    seconds = 0.0
    while engine.has_work:
        before, encoded = times.clone(), engine.stats.encode_s
        running = engine.stats.num_lanes
        begin = time.perf_counter()
        engine.step()
        took = time.perf_counter() - begin
        if engine.stats.encode_s > encoded or not running:
            continue
        steps, lanes, seconds = steps + 1, lanes + running, seconds + took
        phases += times - before
    known = {name: float(phases[place]) * 1e3 / steps for place, name in enumerate(PHASES) if phases[place]}
    return {
        "steps": steps,
        "lanes": lanes / steps,
        "step_ms": seconds * 1e3 / steps,
        "phases_ms": known,
        "around_ms": seconds * 1e3 / steps - sum(known.values()),
        "weights": weights_of(config),
    }


def print_profile(title: str, found: dict[str, Any], bandwidth: float) -> None:
    print(f"{title}: {found['steps']} steps of {found['lanes']:.0f} lanes on average, {found['step_ms']:.1f} ms each")
    for name, spent in sorted(found["phases_ms"].items(), key=lambda item: -item[1]):
        line = f"  {name:16} {spent:7.2f} ms {spent / found['step_ms']:4.0%}"
        if size := found["weights"].get(name):
            speed = size / spent * 1e3
            line += f"   weights at {speed / 1e9:5.1f} GB/s, {speed / bandwidth:.0%} of a plain read, "
            line += f"{2 * size * found['lanes'] / spent * 1e3 / 1e12:.2f} Top/s"
        print(line)
    share = found["around_ms"] / found["step_ms"]
    print(f"  {'around them':16} {found['around_ms']:7.2f} ms {share:4.0%}   (scheduler, search, embedding, calls)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="600M", choices=["600M", "1.3B", "3.3B"])
    parser.add_argument("--model", type=Path, help="another checkpoint folder instead")
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/nllbd-bench"))
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lanes", type=int, default=0, help="default: the engine's own")
    parser.add_argument("--alone", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    print(common.headline(vars(options)))
    model = options.model or quantize_for_nllbd(cached(options.shape, options.cache_dir), options.cache_dir)
    checkpoint = read_checkpoint(model)
    engine = build_engine(
        EngineConfig(str(model), device="cpu", dtype="int8", num_threads=options.threads, max_num_lanes=options.lanes)
    )
    bandwidth = measure_ceilings().bandwidth
    print(f"a plain read: {bandwidth / 1e9:.1f} GB/s")
    tokenizer = Tokenizer(checkpoint)
    rows = corpus.sentences(400, corpus.directions("eng_Latn-fra_Latn"), 0)
    results: dict[str, Any] = {"bandwidth_gb_per_s": bandwidth / 1e9}
    for beams in options.beams:
        params = SearchParams(num_beams=beams, max_length=128)
        sources = [(tokenizer.encode(it.text, it.source), tokenizer.language_id(it.target)) for it in rows]
        many = sorted(sources, key=lambda it: -len(it[0]))[: engine.info.max_num_lanes // beams]
        number = 1_000_000 * beams
        for title, groups in (("many", [many]), ("alone", [[it] for it in sources[: options.alone]])):
            requests = [
                [SequenceRequest(number + 1000 * group + place, ids, target, params, FOREVER)
                 for place, (ids, target) in enumerate(them)]
                for group, them in enumerate(groups)
            ]  # fmt: skip
            number += 500_000
            found = [profile(engine, them, checkpoint.config) for them in requests]
            results[f"beam {beams} {title}"] = found[-1]
            print_profile(f"beam {beams}, {title}", found[-1], bandwidth)
    common.save("profile_step", vars(options), results, options.results)


if __name__ == "__main__":
    main()
