"""Tiled projection: the same as one log-softmax over the whole vocabulary."""

import pytest
import torch

from nllbd.kernels.project_topk_ref import project_topk, rescored_topk


def _tiles(weight: torch.Tensor, size: int):
    return [lambda x, rows=rows: x @ rows.T for rows in weight.split(size)]


@pytest.mark.parametrize("size", [1000, 512, 333, 7])
def test_equals_log_softmax_of_everything(size: int) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(1000, 64), torch.randn(5, 64)
    values, ids = project_topk(_tiles(weight, size), hidden, 8)
    expected, expected_ids = torch.log_softmax(hidden @ weight.T, dim=1).topk(8, dim=1)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


def test_equal_logits_come_by_token_id() -> None:
    weight = torch.zeros(64, 4)
    weight[40:44] = 1.0
    _, ids = project_topk(_tiles(weight, 16), torch.ones(2, 4), 4)
    assert ids.tolist() == [[40, 41, 42, 43]] * 2


def test_half_precision_logits_give_float32_scores() -> None:
    weight, hidden = torch.randn(100, 32, dtype=torch.bfloat16), torch.randn(3, 32, dtype=torch.bfloat16)
    values, _ = project_topk(_tiles(weight, 50), hidden, 4)
    assert values.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rescored_candidates_are_ordered_as_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight, hidden = (torch.randn(3000, 64) * 0.3).to(dtype), torch.randn(16, 64) * 4
    tiles = [lambda x, rows=rows: x.to(dtype) @ rows.T for rows in weight.split(1024)]
    values, ids = rescored_topk(tiles, weight, hidden, 8)
    expected, expected_ids = torch.log_softmax(hidden @ weight.float().T, dim=1).topk(8, dim=1)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(values, expected, rtol=1e-2, atol=3e-2)
