"""One decode step on a GPU against the machine's ceilings (see bench/gpu.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from bench.contestants import Job
from nllbd.engine.engine import Engine
from nllbd.engine.gpu_runner import GpuRunner
from nllbd.sched.sequence import SearchParams, SequenceRequest

FOREVER = 1e12  # a deadline that never comes
COPY_BYTES, COPIES = 1 << 32, 10
MATRIX, PRODUCTS = 8192, 10
REPEATS, ENGINE_STEPS = 20, 24
MAX_LENGTH = 100  # of the sequences that are stepped


def measure_ceilings(device: torch.device, dtype: str) -> dict[str, float]:
    """Bytes a second of a large copy (read and written) and FLOP/s of a large matrix product."""
    is_cuda = device.type == "cuda"
    scale = 1 if is_cuda else 64
    source = torch.empty(COPY_BYTES // scale, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), COPIES, is_cuda)
    size = MATRIX // (1 if is_cuda else 8)
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    product_s = _best_s(lambda: left @ right, PRODUCTS, is_cuda)
    found = {"bytes_per_s": 2 * len(source) / copy_s, "flops_per_s": 2 * size**3 / product_s}
    print({name: f"{value:.3g}" for name, value in found.items()}, flush=True)
    return found


def _best_s(operation: Any, times: int, is_cuda: bool) -> float:
    best = float("inf")
    for _ in range(times + 2):
        begin = time.perf_counter()
        operation()
        if is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def measure_steps(
    engine: Engine, jobs: Sequence[Job], lanes: Sequence[int], ceilings: dict[str, float], until: float
) -> list[dict[str, Any]]:
    """For each number of lanes, greedy and (from 4 on) with 4 beams; stops when `until` (monotonic) has come."""
    runner = engine.runner
    assert isinstance(runner, GpuRunner)
    found = []
    for beams in (1, 4):
        for count in lanes:
            if count >= beams and time.monotonic() < until:
                found.append(_measure(engine, runner, jobs, count, beams, ceilings))
                print({name: round(value, 4) for name, value in found[-1].items()}, flush=True)
    return found


def _measure(
    engine: Engine, runner: GpuRunner, jobs: Sequence[Job], lanes: int, beams: int, ceilings: dict[str, float]
) -> dict[str, Any]:
    """All sequences in flight, then the engine's steps by the wall clock, then repeats of the last launch.

    The longest sources, so that few end meanwhile; the engine's figure is of steps with at least 90 % of them.
    """
    params = SearchParams(num_beams=beams, max_length=MAX_LENGTH)
    count = lanes // beams
    longest = sorted(jobs, key=lambda job: len(job[0]), reverse=True)[:count]
    sources = [longest[place % len(longest)] for place in range(count)]
    requests = [SequenceRequest(place, ids, target, params, FOREVER) for place, (ids, target) in enumerate(sources)]
    engine.add(requests)
    while len(runner.live) < count and engine.stats.num_waiting:
        engine.step()
    took: list[float] = []
    length = 0
    for _ in range(ENGINE_STEPS):
        length = max([length, *(live.length(runner.launches) for live in runner.live.values())])
        begin = time.perf_counter()
        engine.step()
        if len(runner.live) < 0.9 * count:
            break
        took.append(time.perf_counter() - begin)
    took_s = sorted(took)[len(took) // 2] if took else float("nan")
    shape = runner.last_shape
    assert shape is not None
    graph_ms = runner.time_step_ms(shape, REPEATS)
    # the least that must be read: beams share some of their past, and a position of it is counted once here
    positions = count * length + sum(len(ids) for ids, _ in sources)
    work = step_work(runner, shape.num_rows, positions)
    engine.abort([request.seq_id for request in requests])
    while engine.has_work:
        engine.step()
    floor_s = max(work["bytes"] / ceilings["bytes_per_s"], work["flops"] / ceilings["flops_per_s"])
    graph_s = graph_ms / 1e3
    return {
        "lanes": lanes, "beams": beams, "rows": shape.num_rows, "fused": shape.fused, "history": length,
        "graph_ms": graph_ms, "engine_step_ms": took_s * 1e3, "bytes": work["bytes"], "flops": work["flops"],
        "roofline_ms": floor_s * 1e3, "of_roofline": floor_s / graph_s, "tokens_per_s": lanes / beams / took_s,
    }  # fmt: skip


def step_work(runner: GpuRunner, num_rows: int, positions: int) -> dict[str, float]:
    """Bytes a step must read, KV of so many positions included, and its FLOPs (two a weight and row)."""
    config = runner.network.config
    d_model, ffn = config.d_model, config.decoder_ffn
    # self-attention has four square matrices; cross-attention two, its K and V being in the cache
    per_layer = 6 * d_model * d_model + 2 * d_model * ffn
    weights = config.decoder_layers * per_layer + config.vocab_size * d_model
    kv = 2 * config.decoder_layers * d_model * positions
    size = runner.network.dtype.itemsize
    return {"bytes": float((weights + kv) * size), "flops": 2.0 * weights * num_rows}
