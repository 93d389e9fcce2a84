"""The fused projection against one log-softmax over everything."""

import pytest
import torch

pytest.importorskip("triton")

from nllbd.kernels.project_topk_triton import project_topk
from tests.kernels.paged_case import DEVICE, TOLERANCE


def _case(rows: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    return hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "width", "vocabulary", "k", "programs"),
    [(1, 16, 40, 2, 1), (3, 100, 1000, 8, 3), (17, 64, 513, 4, 100), (66, 32, 300, 4, 2), (5, 32, 1500, 16, 1)],
)
def test_equals_log_softmax(dtype: torch.dtype, rows: int, width: int, vocabulary: int, k: int, programs: int) -> None:
    hidden, weight = _case(rows, width, vocabulary, dtype)
    found, ids = project_topk(weight, hidden, k, programs)
    every = (hidden.float() @ weight.float().T).log_softmax(dim=1)
    expected, expected_ids = every.topk(k, dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if dtype is torch.float32 else TOLERANCE[dtype])
    if dtype is torch.float32:
        assert torch.equal(ids, expected_ids)
    else:
        torch.testing.assert_close(every.gather(1, ids), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("programs", [1, 4])
def test_equal_logits_come_by_token_id(programs: int) -> None:
    weight = torch.zeros(600, 16, device=DEVICE)
    weight[[30, 290, 300, 301, 555, 599]] = 1.0
    _, ids = project_topk(weight, torch.ones(2, 16, device=DEVICE), 8, programs)
    assert ids.tolist() == [[30, 290, 300, 301, 555, 599, 0, 1]] * 2


def test_a_better_one_drives_out_the_worst_and_of_equals_the_latest() -> None:
    weight = torch.zeros(400, 16, device=DEVICE)
    weight[[5, 6, 200, 399]] = torch.tensor([1.0, 1.0, 2.0, 1.0], device=DEVICE)[:, None]
    _, ids = project_topk(weight, torch.ones(1, 16, device=DEVICE), 2, programs=1)
    assert ids.tolist() == [[200, 5]]


def test_far_apart_logits_do_not_overflow() -> None:
    weight = torch.zeros(300, 16, device=DEVICE)
    weight[7], weight[280] = 300.0, -300.0
    found, ids = project_topk(weight, torch.ones(1, 16, device=DEVICE), 2, programs=3)
    assert ids[0, 0] == 7
    torch.testing.assert_close(found[0].cpu(), torch.tensor([0.0, -4800.0]))
