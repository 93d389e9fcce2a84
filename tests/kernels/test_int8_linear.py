"""Int8 linear: close to the float result, and the same bits whatever shares the batch."""

import time

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


def test_few_rows_padded_or_not_give_the_same_bits(layer) -> None:
    int8, _, _ = layer
    rows, _ = quantize_rows(torch.randn(3, 256))
    int8.min_rows = 1
    plain = int8.accumulate(rows)
    int8.min_rows = 16
    assert torch.equal(int8.accumulate(rows), plain)


def test_one_row_is_never_much_slower_than_sixteen() -> None:
    wide = Int8Linear(*quantize_rows(torch.randn(8192, 256)), None)
    one, sixteen = torch.zeros(1, 256, dtype=torch.int8), torch.zeros(16, 256, dtype=torch.int8)

    def best_s(rows: torch.Tensor) -> float:
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            wide.accumulate(rows)
            times.append(time.perf_counter() - begin)
        return min(times)

    assert best_s(one) < 10 * best_s(sixteen)
