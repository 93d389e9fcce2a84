"""Recording and replaying; without a GPU everything just runs."""

import pytest
import torch

from nllbd.engine.graphs import GraphPool


def test_without_a_gpu_each_use_runs() -> None:
    pool, calls = GraphPool(torch.device("cpu")), []
    for _ in range(3):
        pool.run("key", lambda: calls.append(1))
    assert len(calls) == 3
    assert len(pool) == 0
    assert pool.time_ms("key", lambda: calls.append(1), 2) > 0
    assert len(calls) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_first_use_runs_the_second_records_and_all_have_effect() -> None:
    device = torch.device("cuda")
    total, calls = torch.zeros(4, device=device), []

    def step() -> None:
        calls.append(1)
        total.add_(1)

    pool = GraphPool(device)
    for done in range(1, 6):
        pool.run("key", step)
        assert total.tolist() == [done] * 4
    assert len(calls) == 2
    assert len(pool) == 1
    assert pool.time_ms("key", step, 3) > 0
