"""Cross-attention over paged KV, the rows of a sequence grouped over one source: plain PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from nllbd.kernels.attention_ref import length_mask, padded_attention
from nllbd.kernels.paged import PagedRows


def grouped_attention(query: Tensor, keys: Tensor, values: Tensor, rows: PagedRows) -> Tensor:
    """query [R, H, D]; keys, values [num_slots, H, D] → [R, H, D]; rows in no group give zeros.

    Source position t of a sequence is slot t of its cross_table.
    """
    out = torch.zeros_like(query)
    live = (rows.group_sequence >= 0).nonzero().squeeze(1)
    if not live.numel():
        return out
    sequence, members = rows.group_sequence[live], rows.group_rows[live]
    lengths = rows.cross_length[sequence]
    source = torch.arange(int(lengths.max()), device=query.device)
    mask = length_mask(lengths, len(source))
    place = torch.where(mask, source[None, :], 0)
    slots = rows.cross_table[sequence].gather(1, place // rows.block_size) * rows.block_size + place % rows.block_size
    key, value = (pool[slots].to(query.dtype) for pool in (keys, values))
    mixed = padded_attention(query[members.clamp(min=0)], key, value, mask)
    filled = members >= 0
    out[members[filled]] = mixed[filled]
    return out
