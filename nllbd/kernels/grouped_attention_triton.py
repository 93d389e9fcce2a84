"""Triton form of grouped_attention_ref.py: a program reads one head of a source once for all lanes. Unmeasured."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nllbd.kernels.paged import PagedRows
from nllbd.kernels.softmax_triton import Parts, fold

BLOCK_T = 32


@triton.jit
def _grouped_attention(
    query, keys, values, out, part_top, part_total, group_sequence, group_rows, cross_length, table,
    query_stride, group_stride, table_stride, num_rows, width, heads, dim, block_size, scale,
    BLOCK_W: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    split = tl.program_id(2)
    sequence = tl.load(group_sequence + group)
    if sequence < 0:
        return
    member = tl.arange(0, BLOCK_W)
    at = tl.arange(0, BLOCK_D)
    row = tl.load(group_rows + group * group_stride + member, mask=member < width, other=-1)
    inside = (row >= 0)[:, None] & (at < dim)[None, :]
    place = head * dim + at
    length = tl.load(cross_length + sequence)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_T) * BLOCK_T
    begin = split * share
    end = tl.minimum(begin + share, length)
    q = tl.load(query + row[:, None] * query_stride + place[None, :], mask=inside, other=0.0)
    top = tl.full((BLOCK_W,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_W,), tl.float32)
    mixed = tl.zeros((BLOCK_W, BLOCK_D), tl.float32)
    for start in range(begin, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        valid = t < end
        block = tl.load(table + sequence * table_stride + t // block_size, mask=valid, other=0)
        address = (block * block_size + t % block_size)[:, None] * (heads * dim) + place[None, :]
        mask = valid[:, None] & (at < dim)[None, :]
        key = tl.load(keys + address, mask=mask, other=0.0).to(q.dtype)
        value = tl.load(values + address, mask=mask, other=0.0).to(q.dtype)
        scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(valid[None, :], scores, float("-inf"))
        top, total, mixed = fold(scores, value, top, total, mixed)
    if SPLITS == 1:
        mixed = mixed / total[:, None]
        tl.store(out + row[:, None] * (heads * dim) + place[None, :], mixed.to(out.dtype.element_ty), mask=inside)
    else:
        line = (split.to(tl.int64) * num_rows + row) * heads + head
        tl.store(out + line[:, None] * dim + at[None, :], mixed, mask=inside)
        tl.store(part_top + line, top, mask=row >= 0)
        tl.store(part_total + line, total, mask=row >= 0)


def grouped_attention(query: Tensor, keys: Tensor, values: Tensor, rows: PagedRows) -> Tensor:
    """See grouped_attention_ref.py; what rows in no group get is undefined. query may have any row stride."""
    num_rows, heads, dim = query.shape
    num_groups, width = rows.group_rows.shape
    out = torch.empty((num_rows, heads, dim), dtype=query.dtype, device=query.device)
    parts = Parts(out, rows.splits)
    _grouped_attention[(num_groups, heads, rows.splits)](
        query, keys, values, parts.part, parts.top, parts.total, rows.group_sequence, rows.group_rows,
        rows.cross_length, rows.cross_table, query.stride(0), rows.group_rows.stride(0), rows.cross_table.stride(0),
        num_rows, width, heads, dim, rows.block_size, dim**-0.5, BLOCK_W=max(16, triton.next_power_of_2(width)),
        BLOCK_D=max(16, triton.next_power_of_2(dim)), BLOCK_T=BLOCK_T, SPLITS=rows.splits, num_warps=2,
    )  # fmt: skip
    return parts.join()
