"""The encoder's self-attention on packed sources: plain PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from nllbd.kernels.attention_ref import padded_attention
from nllbd.kernels.paged import PackedSources


def packed_attention(qkv: Tensor, sources: PackedSources, num_heads: int) -> Tensor:
    """qkv [N, 3*H*D], queries first → [N, H*D]; tokens of no source give zeros."""
    num_tokens, width = qkv.shape[0], qkv.shape[1] // 3
    out = torch.zeros((num_tokens, width), dtype=qkv.dtype, device=qkv.device)
    query, key, value = qkv.view(num_tokens, 3, num_heads, width // num_heads).unbind(1)
    tiles = zip(sources.tile_start.tolist(), sources.tile_length.tolist(), sources.tile_offset.tolist(), strict=True)
    for start, length, offset in tiles:
        if length and not offset:
            own = slice(start, start + length)
            mixed = padded_attention(query[None, own], key[None, own], value[None, own], None)
            out[own] = mixed.reshape(length, width)
    return out
