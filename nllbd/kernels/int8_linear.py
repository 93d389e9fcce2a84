"""Dynamic int8 linear on the CPU, one activation scale a row.

A row's result must not depend on the rows beside it: one scale for the whole batch (what PyTorch's own dynamic
quantization takes) lets a loud neighbour drown a quiet sentence. Which kernel runs may change speed only.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

INT8_MAX = 127.0
PADDED_ROWS = 16


class Int8Linear:
    """Weight int8 per output channel (symmetric), activations int8 per row (symmetric, absmax), int32 accumulation.

    oneDNN's quantized matmul takes one activation scale for the whole batch; it is given 1.0 and the rows arrive
    already divided by their own scales, which multiply the result afterwards. Integer accumulation makes the result
    bit-equal whatever the batch.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        """weight int8 [out, in]; scale float32 [out]; bias [out] or None."""
        self.out_features, self.in_features = weight.shape
        self.scale = scale
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.zero_points = torch.zeros(self.out_features, dtype=torch.long)
        self.min_rows = fewest_fast_rows(self.out_features, self.in_features)
        self.bias = None if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        rows, scale = quantize_rows(x)
        y = self.accumulate(rows)
        y *= scale[:, None]
        return y if self.bias is None else y.add_(self.bias)

    def accumulate(self, rows: Tensor) -> Tensor:
        """int8 rows [R, in] → float32 [R, out], the weights' scales applied, the rows' scales and the bias not."""
        num_rows = rows.shape[0]
        if num_rows < self.min_rows:
            rows = torch.cat([rows, rows.new_zeros(self.min_rows - num_rows, self.in_features)])
        return _matmul(rows, self.packed, self.scale, self.zero_points)[:num_rows]


def _matmul(rows: Tensor, packed: Tensor, scale: Tensor, zero_points: Tensor) -> Tensor:
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, 0, packed, scale, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return out


@functools.cache
def fewest_fast_rows(out_features: int, in_features: int) -> int:
    """1, or as many rows as a smaller matmul of this shape should be padded to, measured here and now.

    oneDNN has no fast kernel for a few rows of some shapes and runs a plain loop: one row of 256 by 8,192 takes
    58 ms where 16 rows take 0.1 ms. Which shapes, depends on the processor.
    """
    packed = torch.ops.onednn.qlinear_prepack(torch.zeros(out_features, in_features, dtype=torch.int8), None)
    scale, zero_points = torch.ones(out_features), torch.zeros(out_features, dtype=torch.long)

    def best_s(num_rows: int) -> float:
        rows = torch.zeros(num_rows, in_features, dtype=torch.int8)
        _matmul(rows, packed, scale, zero_points)  # the first call makes the kernel
        return min(_timed(lambda: _matmul(rows, packed, scale, zero_points)) for _ in range(3))

    padded = best_s(PADDED_ROWS)
    return PADDED_ROWS if max(best_s(1), best_s(4)) > 2 * padded else 1


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, n] float32 → int8 [rows, n] and float32 scales [rows] with x ≈ int8 * scale; a zero row has scale 0."""
    scale = x.abs().amax(dim=1) / INT8_MAX
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
    return (x * inverse[:, None]).round_().clamp_(-INT8_MAX, INT8_MAX).to(torch.int8), scale
