"""Paged self-attention of decoder rows with beam ancestry: plain PyTorch reference.

Each row names the slots of its own history, so beams that share a past read the same KV without copies of it.
"""

from __future__ import annotations

from torch import Tensor

from nllbd.kernels.attention_ref import length_mask, padded_attention

MAX_GATHERED_ELEMENTS = 1 << 25  # rows are taken in chunks so that a long prefill does not gather gigabytes


def self_attention(query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """query [R, H, D]; keys, values [num_slots, H, D]; slots [R, T]; lengths [R] (each ≥ 1) → [R, H, D]."""
    num_rows, width = slots.shape
    out = query.new_empty(query.shape)
    chunk = max(1, MAX_GATHERED_ELEMENTS // (width * query.shape[1] * query.shape[2]))
    for start in range(0, num_rows, chunk):
        part = slice(start, start + chunk)
        flat = slots[part].flatten()
        shape = (-1, width, *query.shape[1:])
        key, value = (pool.index_select(0, flat).view(shape).to(query.dtype) for pool in (keys, values))
        mask = length_mask(lengths[part], width)
        out[part] = padded_attention(query[part, None], key, value, mask).squeeze(1)
    return out
