"""The GPU benchmark's arithmetic, and that its measurements run (their figures mean nothing here)."""

from types import SimpleNamespace

import pytest
import torch

from bench.gpu_steps import measure_ceilings, measure_steps, step_work
from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import DEMO_FOLDER
from nllbd.engine.build import build_engine


def _runner(**shape: int) -> SimpleNamespace:
    return SimpleNamespace(network=SimpleNamespace(config=SimpleNamespace(**shape), dtype=torch.float16))


def test_what_a_step_at_600m_reads() -> None:
    runner = _runner(d_model=1024, decoder_layers=12, decoder_ffn=4096, vocab_size=256_206)
    assert step_work(runner, 1, positions=0)["bytes"] == pytest.approx(0.88e9, rel=0.01)
    one = step_work(runner, 1, positions=1)["bytes"] - step_work(runner, 1, positions=0)["bytes"]
    assert one == 48 * 1024
    assert step_work(runner, 64, positions=0)["flops"] == pytest.approx(64 * 2 * 438.5e6, rel=0.01)


def test_steps_are_measured() -> None:
    config = EngineConfig(
        str(DEMO_FOLDER), device="cpu", dtype="float32", runner="gpu", kv_cache_bytes=1 << 24, max_num_lanes=8
    )
    engine = build_engine(config)
    jobs = [((8001, *range(300, 320), 2), 8050), ((8001, 400, 401, 2), 8050)]
    ceilings = measure_ceilings(torch.device("cpu"), "float32")
    found = measure_steps(engine, jobs, [1, 4], ceilings, until=float("inf"))
    assert [(item["lanes"], item["beams"]) for item in found] == [(1, 1), (4, 1), (4, 4)]
    assert all(0 < item["of_roofline"] < 1 and item["graph_ms"] > 0 for item in found)
    assert not engine.has_work
    engine.check_integrity()
