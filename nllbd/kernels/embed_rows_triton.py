"""Triton form of embed_rows_ref.py: one program a row. Unmeasured."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nllbd.kernels.embed_rows_ref import Embedding
from nllbd.kernels.paged import PagedRows


@triton.jit
def _embed_rows(
    hidden, slots, sequences, lanes, backs, lengths, num_beams, tokens, self_table, table, positions,
    tokens_stride_s, tokens_stride_l, table_stride, d_model, block_size, scale, pad_id, offset, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    sequence = tl.load(sequences + row)
    if sequence < 0:
        tl.store(slots + row, sequence)
        return
    lane = tl.load(lanes + row)
    position = tl.load(lengths + sequence) - 1 - tl.load(backs + row)
    token = tl.load(tokens + sequence * tokens_stride_s + lane * tokens_stride_l + position)
    own = position * tl.load(num_beams + sequence) + lane
    block = tl.load(self_table + sequence * table_stride + own // block_size)
    tl.store(slots + row, block * block_size + own % block_size)
    place = tl.where(token == pad_id, pad_id, position + offset)
    for start in range(0, d_model, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < d_model
        embedded = tl.load(table + token * d_model + at, mask=inside, other=0.0)
        added = tl.load(positions + place * d_model + at, mask=inside, other=0.0)
        value = embedded.to(tl.float32) * scale + added.to(tl.float32)
        tl.store(hidden + row * d_model + at, value.to(added.dtype), mask=inside)


def embed_rows(rows: PagedRows, embedding: Embedding) -> tuple[Tensor, Tensor]:
    """See embed_rows_ref.py; what `hidden` holds in empty rows is undefined."""
    table = embedding.table
    num_rows, d_model = rows.sequence.shape[0], table.shape[1]
    hidden = torch.empty((num_rows, d_model), dtype=embedding.positions.dtype, device=table.device)
    slots = torch.empty_like(rows.sequence)
    _embed_rows[(num_rows,)](
        hidden, slots, rows.sequence, rows.lane, rows.back, rows.length, rows.num_beams, rows.tokens, rows.self_table,
        table, embedding.positions, rows.tokens.stride(0), rows.tokens.stride(1), rows.self_table.stride(0), d_model,
        rows.block_size, embedding.scale, embedding.pad_id, embedding.offset, BLOCK=1024,
    )  # fmt: skip
    return hidden, slots
