"""Dynamic int8 linear on the CPU, one activation scale a row.

A row's result must not depend on the rows beside it: one scale for the whole batch (what PyTorch's own dynamic
quantization takes) lets a loud neighbour drown a quiet sentence. Which kernel runs may change speed only.
"""

from __future__ import annotations

import torch
from torch import Tensor

INT8_MAX = 127.0


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
        self.bias = None if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        rows, scale = quantize_rows(x)
        y = self.accumulate(rows)
        y *= scale[:, None]
        return y if self.bias is None else y.add_(self.bias)

    def accumulate(self, rows: Tensor) -> Tensor:
        """int8 rows [R, in] → float32 [R, out], the weights' scales applied, the rows' scales and the bias not."""
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.packed, self.scale, self.zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, n] float32 → int8 [rows, n] and float32 scales [rows] with x ≈ int8 * scale; a zero row has scale 0."""
    scale = x.abs().amax(dim=1) / INT8_MAX
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
    return (x * inverse[:, None]).round_().clamp_(-INT8_MAX, INT8_MAX).to(torch.int8), scale
