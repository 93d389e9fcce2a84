"""Triton form of write_kv_ref.py: one program a position. Unmeasured."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _write_kv(key_value, slots, keys, values, stride, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row)
    if slot < 0:
        return
    at = tl.arange(0, BLOCK)
    inside = at < width
    key = tl.load(key_value + row * stride + at, mask=inside)
    value = tl.load(key_value + row * stride + width + at, mask=inside)
    tl.store(keys + slot * width + at, key.to(keys.dtype.element_ty), mask=inside)
    tl.store(values + slot * width + at, value.to(values.dtype.element_ty), mask=inside)


def write_kv(key_value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """See write_kv_ref.py; keys and values are contiguous, key_value has unit column stride."""
    width = key_value.shape[1] // 2
    block = triton.next_power_of_2(width)
    _write_kv[(slots.shape[0],)](
        key_value, slots, keys, values, key_value.stride(0), width, BLOCK=block,
        num_warps=min(8, max(1, block // 256)),
    )  # fmt: skip
