"""Paged cross-attention with the rows of a sequence grouped over one KV (as in GQA): plain PyTorch reference."""

from __future__ import annotations

from torch import Tensor

from nllbd.kernels.attention_ref import length_mask, padded_attention


def cross_attention(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, group_rows: Tensor, row_places: Tensor
) -> Tensor:
    """query [R, H, D]; keys, values [num_slots, H, D]; slots [G, S]; lengths [G]; group_rows [G, W]; row_places [R].

    Returns [R, H, D]. The KV of a group is gathered once for all its W rows.
    """
    num_groups, width = slots.shape
    flat = slots.flatten()
    shape = (num_groups, width, *query.shape[1:])
    key, value = (pool.index_select(0, flat).view(shape).to(query.dtype) for pool in (keys, values))
    grouped = query.index_select(0, group_rows.flatten()).view(num_groups, -1, *query.shape[1:])
    mixed = padded_attention(grouped, key, value, length_mask(lengths, width))
    return mixed.reshape(-1, *query.shape[1:]).index_select(0, row_places)
