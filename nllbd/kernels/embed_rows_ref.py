"""The embedded tokens of a pass's rows and where their KV goes: plain PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.kernels.paged import PagedRows


@dataclass(frozen=True, slots=True)
class Embedding:
    """table [vocabulary, d_model]; positions [.., d_model], read at position + offset (a literal <pad>: at pad_id).

    The sum is in the dtype of `positions`.
    """

    table: Tensor
    positions: Tensor
    scale: float
    pad_id: int
    offset: int


def embed_tokens(ids: Tensor, positions: Tensor, embedding: Embedding) -> Tensor:
    """ids, positions: [N] → [N, d_model]."""
    place = torch.where(ids == embedding.pad_id, embedding.pad_id, positions + embedding.offset)
    rows = embedding.table[ids].to(embedding.positions.dtype)
    return rows * embedding.scale + embedding.positions[place]


def embed_rows(rows: PagedRows, embedding: Embedding) -> tuple[Tensor, Tensor]:
    """Returns hidden [R, d_model] and the slot of the KV pool that each row writes [R] (-1 for empty rows)."""
    live = rows.sequence >= 0
    sequence, lane = rows.sequence.clamp(min=0), rows.lane.clamp(min=0)
    position = (rows.length[sequence] - 1 - rows.back).clamp(min=0)
    token = rows.tokens[sequence, lane, position]
    own = position * rows.num_beams[sequence] + lane
    table = rows.self_table[sequence]
    block = table.gather(1, (own // rows.block_size).clamp(max=table.shape[1] - 1)[:, None]).squeeze(1)
    slot = block * rows.block_size + own % rows.block_size
    return embed_tokens(token, position, embedding), torch.where(live, slot, -1)
