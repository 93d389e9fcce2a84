"""Triton form of packed_attention_ref.py: a program takes one head of one tile of queries. Unmeasured."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nllbd.kernels.paged import PackedSources
from nllbd.kernels.softmax_triton import fold

BLOCK_T = 32


@triton.jit
def _packed_attention(
    qkv, out, tile_start, tile_length, tile_offset, stride, width, dim, scale,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    head = tl.program_id(1)
    length = tl.load(tile_length + tile)
    if length == 0:
        return
    start = tl.load(tile_start + tile)
    place = tl.load(tile_offset + tile) + tl.arange(0, BLOCK_Q)
    at = tl.arange(0, BLOCK_D)
    column = head * dim + at
    inside = (place < length)[:, None] & (at < dim)[None, :]
    q = tl.load(qkv + (start + place)[:, None] * stride + column[None, :], mask=inside, other=0.0)
    top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    mixed = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for begin in range(0, length, BLOCK_T):
        t = begin + tl.arange(0, BLOCK_T)
        valid = t < length
        address = (start + t)[:, None] * stride + column[None, :]
        mask = valid[:, None] & (at < dim)[None, :]
        key = tl.load(qkv + address + width, mask=mask, other=0.0)
        value = tl.load(qkv + address + 2 * width, mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(valid[None, :], scores, float("-inf"))
        top, total, mixed = fold(scores, value, top, total, mixed)
    mixed = mixed / total[:, None]
    tl.store(out + (start + place)[:, None] * width + column[None, :], mixed.to(out.dtype.element_ty), mask=inside)


def packed_attention(qkv: Tensor, sources: PackedSources, num_heads: int) -> Tensor:
    """See packed_attention_ref.py; what tokens of no source get is undefined."""
    num_tokens, width = qkv.shape[0], qkv.shape[1] // 3
    dim = width // num_heads
    out = torch.empty((num_tokens, width), dtype=qkv.dtype, device=qkv.device)
    _packed_attention[(sources.tile_start.shape[0], num_heads)](
        qkv, out, sources.tile_start, sources.tile_length, sources.tile_offset, qkv.stride(0), width, dim, dim**-0.5,
        BLOCK_Q=max(16, triton.next_power_of_2(sources.tile_rows)), BLOCK_D=max(16, triton.next_power_of_2(dim)),
        BLOCK_T=BLOCK_T,
    )  # fmt: skip
    return out
