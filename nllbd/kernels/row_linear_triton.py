"""Triton form of row_linear_ref.py, for steps of few rows, whose time is the reading of the weights. Unmeasured.

Each program keeps a narrow strip of the weights and all rows, so that LayerNorm, bias, ReLU and residual cost no launch
of their own. With many rows a library's matrix multiplication is the better one (graphs.py measures which).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N, BLOCK_K = 16, 256


@triton.jit
def _row_linear(
    x, weight, bias, norm_weight, norm_bias, residual, out, num_rows, out_features, in_features, x_stride,
    HAS_NORM: tl.constexpr, HAS_RELU: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    here = (row < num_rows)[:, None]
    line = x + row.to(tl.int64)[:, None] * x_stride
    mean = tl.zeros((BLOCK_M,), tl.float32)
    inverse = tl.zeros((BLOCK_M,), tl.float32)
    if HAS_NORM:
        for start in range(0, in_features, BLOCK_K):
            at = start + tl.arange(0, BLOCK_K)
            mask = here & (at < in_features)[None, :]
            mean += tl.sum(tl.load(line + at[None, :], mask=mask, other=0.0).to(tl.float32), axis=1)
        mean = mean / in_features
        for start in range(0, in_features, BLOCK_K):
            at = start + tl.arange(0, BLOCK_K)
            mask = here & (at < in_features)[None, :]
            centred = tl.load(line + at[None, :], mask=mask, other=0.0).to(tl.float32) - mean[:, None]
            inverse += tl.sum(tl.where(mask, centred * centred, 0.0), axis=1)
        inverse = 1.0 / tl.sqrt(inverse / in_features + 1e-5)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, in_features, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        known = at < in_features
        strip = weight + column.to(tl.int64)[:, None] * in_features + at[None, :]
        w = tl.load(strip, mask=(column < out_features)[:, None] & known[None, :], other=0.0)
        part = tl.load(line + at[None, :], mask=here & known[None, :], other=0.0)
        if HAS_NORM:
            gain = tl.load(norm_weight + at, mask=known, other=0.0).to(tl.float32)
            shift = tl.load(norm_bias + at, mask=known, other=0.0).to(tl.float32)
            normed = (part.to(tl.float32) - mean[:, None]) * inverse[:, None] * gain[None, :] + shift[None, :]
            acc = tl.dot(normed.to(w.dtype), tl.trans(w), acc, input_precision="ieee")
        else:
            acc = tl.dot(part.to(w.dtype), tl.trans(w), acc, input_precision="ieee")
    acc += tl.load(bias + column, mask=column < out_features, other=0.0).to(tl.float32)[None, :]
    if HAS_RELU:
        acc = tl.maximum(acc, 0.0)
    place = row.to(tl.int64)[:, None] * out_features + column[None, :]
    mask = here & (column < out_features)[None, :]
    if HAS_RESIDUAL:
        acc += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=mask)


def row_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    norm: tuple[Tensor, Tensor] | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """See row_linear_ref.py; weight and residual are contiguous, x has unit column stride."""
    num_rows, in_features = x.shape
    out_features = weight.shape[0]
    out = residual
    if out is None:
        out = torch.empty((num_rows, out_features), dtype=weight.dtype, device=x.device)
    norm_weight, norm_bias = norm or (bias, bias)
    block_m = min(64, max(16, triton.next_power_of_2(num_rows)))
    block_k = BLOCK_K if weight.dtype.itemsize == 2 else BLOCK_K // 4
    _row_linear[(triton.cdiv(out_features, BLOCK_N), triton.cdiv(num_rows, block_m))](
        x, weight, bias, norm_weight, norm_bias, out, out, num_rows, out_features, in_features, x.stride(0),
        HAS_NORM=norm is not None, HAS_RELU=relu, HAS_RESIDUAL=residual is not None,
        BLOCK_M=block_m, BLOCK_N=BLOCK_N, BLOCK_K=block_k if block_m <= 32 else block_k // 2, num_warps=4,
    )  # fmt: skip
    return out
