"""Triton form of add_norm_ref.py: one program a row, which stays in registers between the two. Unmeasured."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_norm(hidden, added, weight, bias, out, width, HAS_ADDED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    stored = tl.load(hidden + row * width + at, mask=inside, other=0.0)
    x = stored.to(tl.float32)
    if HAS_ADDED:
        total = x + tl.load(added + row * width + at, mask=inside, other=0.0).to(tl.float32)
        rounded = total.to(stored.dtype)
        tl.store(hidden + row * width + at, rounded, mask=inside)
        x = rounded.to(tl.float32)
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    scaled = centred / tl.sqrt(variance + 1e-5) * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    value = scaled + tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, value.to(out.dtype.element_ty), mask=inside)


def add_norm(hidden: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """See add_norm_ref.py; hidden and added are contiguous."""
    num_rows, width = hidden.shape
    out = torch.empty_like(hidden, dtype=dtype)
    block = triton.next_power_of_2(width)
    _add_norm[(num_rows,)](
        hidden, hidden if added is None else added, weight, bias, out, width,
        HAS_ADDED=added is not None, BLOCK=block, num_warps=min(16, max(1, block // 256)),
    )  # fmt: skip
    return out
