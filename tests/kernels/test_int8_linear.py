"""Int8 linear: close to the float result, and the same bits whatever shares the batch."""

import pytest
import torch

from nllbd.kernels.int8_linear import Int8Linear, quantize_rows


@pytest.fixture(scope="module")
def layer() -> tuple[Int8Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(384, 256, generator=generator) * 0.05
    bias = torch.randn(384, generator=generator)
    return Int8Linear(*quantize_rows(weight), bias), weight, bias


def test_row_error_is_that_of_eight_bits(layer) -> None:
    int8, weight, bias = layer
    x = torch.randn(32, 256) * torch.logspace(-2, 2, 32)[:, None]  # rows of very different loudness
    exact = x @ weight.T
    error = (int8(x) - bias - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.02


@pytest.mark.parametrize("mates", [1, 2, 7, 31, 200])
def test_batch_mates_do_not_change_a_bit(layer, mates: int) -> None:
    int8, _, _ = layer
    x = torch.randn(3, 256)
    alone = int8(x)
    loud = torch.randn(mates, 256) * 1000
    assert torch.equal(int8(torch.cat([x, loud]))[:3], alone)
    assert torch.equal(int8(torch.cat([loud, x]))[-3:], alone)


def test_a_zero_row_stays_zero_and_finite(layer) -> None:
    int8, _, bias = layer
    assert torch.equal(int8(torch.zeros(2, 256)), bias.expand(2, -1))


def test_quantize_rows_is_symmetric_and_full_range() -> None:
    x = torch.tensor([[-2.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    rows, scale = quantize_rows(x)
    assert rows.tolist() == [[-127, 64, 127], [0, 0, 0]]
    assert scale.tolist() == pytest.approx([2 / 127, 0.0])
