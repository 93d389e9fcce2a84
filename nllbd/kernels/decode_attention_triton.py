"""Triton form of decode_attention_ref.py. Unmeasured.

A program takes some heads of one row and walks the row's history (or, where there are few rows and long histories, its
share of it): KV addresses come from the ancestry and the block table on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nllbd.kernels.paged import PagedRows
from nllbd.kernels.softmax_triton import Parts

MANY_ROWS = 64  # from here on rows fill the device, and a program takes several heads to share the addresses


@triton.jit
def _decode_attention(
    query, keys, values, out, part_top, part_total, sequences, lanes, backs, lengths, num_beams, ancestor, table,
    query_stride, ancestor_stride_s, ancestor_stride_l, table_stride, num_rows, heads, dim, block_size, scale,
    BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(2)
    sequence = tl.load(sequences + row)
    if sequence < 0:
        return
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    at = tl.arange(0, BLOCK_D)
    inside = (head < heads)[:, None] & (at < dim)[None, :]
    place = head[:, None] * dim + at[None, :]  # of a head's vector in a row or slot
    lane = tl.load(lanes + row)
    beams = tl.load(num_beams + sequence)
    length = tl.load(lengths + sequence) - tl.load(backs + row)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_T) * BLOCK_T
    begin = split * share
    end = tl.minimum(begin + share, length)
    q = tl.load(query + row * query_stride + place, mask=inside, other=0.0).to(tl.float32) * scale
    top = tl.full((BLOCK_H,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_H,), tl.float32)
    mixed = tl.zeros((BLOCK_H, BLOCK_D), tl.float32)
    line = ancestor + sequence * ancestor_stride_s + lane * ancestor_stride_l
    for start in range(begin, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        valid = t < end
        own = t * beams + tl.load(line + t, mask=valid, other=0)
        block = tl.load(table + sequence * table_stride + own // block_size, mask=valid, other=0)
        slot = block * block_size + own % block_size
        address = slot[:, None, None] * (heads * dim) + place[None, :, :]
        mask = valid[:, None, None] & inside[None, :, :]
        key = tl.load(keys + address, mask=mask, other=0.0).to(tl.float32)
        scores = tl.where(valid[:, None], tl.sum(key * q[None, :, :], axis=2), float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=0))
        weights = tl.exp(scores - new_top[None, :])
        shrink = tl.exp(top - new_top)
        value = tl.load(values + address, mask=mask, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(weights, axis=0)
        mixed = mixed * shrink[:, None] + tl.sum(weights[:, :, None] * value, axis=0)
        top = new_top
    if SPLITS == 1:
        tl.store(out + row * heads * dim + place, (mixed / total[:, None]).to(out.dtype.element_ty), mask=inside)
    else:
        line_out = (split.to(tl.int64) * num_rows + row) * heads
        tl.store(out + line_out * dim + place, mixed, mask=inside)
        tl.store(part_top + line_out + head, top, mask=head < heads)
        tl.store(part_total + line_out + head, total, mask=head < heads)


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, rows: PagedRows) -> Tensor:
    """See decode_attention_ref.py; what empty rows get is undefined. query may be a view with any row stride."""
    num_rows, heads, dim = query.shape
    out = torch.empty((num_rows, heads, dim), dtype=query.dtype, device=query.device)
    parts = Parts(out, rows.splits)
    block_h = 4 if num_rows >= MANY_ROWS else 1
    _decode_attention[(num_rows, triton.cdiv(heads, block_h), rows.splits)](
        query, keys, values, parts.part, parts.top, parts.total, rows.sequence, rows.lane, rows.back, rows.length,
        rows.num_beams, rows.ancestor, rows.self_table, query.stride(0), rows.ancestor.stride(0),
        rows.ancestor.stride(1), rows.self_table.stride(0), num_rows, heads, dim, rows.block_size, dim**-0.5,
        BLOCK_H=block_h, BLOCK_D=triton.next_power_of_2(dim), BLOCK_T=64 // block_h, SPLITS=rows.splits,
    )  # fmt: skip
    return parts.join()
