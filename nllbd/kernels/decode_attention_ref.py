"""Self-attention of decode rows over paged KV with lane ancestry: plain PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from nllbd.kernels.paged import PagedRows
from nllbd.kernels.self_attention_ref import self_attention


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, rows: PagedRows) -> Tensor:
    """query [R, H, D]; keys, values [num_slots, H, D] → [R, H, D]; empty rows give zeros.

    Position t of a row's history was written by lane ancestor[sequence, lane, t], into slot t * num_beams + that lane
    of the sequence's self_table.
    """
    live = (rows.sequence >= 0).nonzero().squeeze(1)
    out = torch.zeros_like(query)
    if not live.numel():
        return out
    sequence, lane = rows.sequence[live], rows.lane[live]
    lengths = rows.length[sequence] - rows.back[live]
    history = torch.arange(int(lengths.max()), device=query.device)
    ancestor = rows.ancestor[sequence, lane][:, : len(history)]
    own = history[None, :] * rows.num_beams[sequence, None] + ancestor
    table = rows.self_table[sequence]
    block = table.gather(1, (own // rows.block_size).clamp_(min=0, max=table.shape[1] - 1))
    slots = block * rows.block_size + own % rows.block_size
    # beyond a row's length, repeat a slot that was written: what lies elsewhere may be NaN, which no mask removes
    slots = torch.where(history[None, :] < lengths[:, None], slots, slots[:, :1])
    out[live] = self_attention(query[live], keys, values, slots, lengths)
    return out
