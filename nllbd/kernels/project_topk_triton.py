"""Triton form of project_topk_ref.py. Unmeasured.

No [rows, vocabulary] matrix is written: a program computes some tiles of logits and keeps, of each row, the running
maximum, the sum of exponentials and the k best; a second kernel joins what the programs kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N, BLOCK_K = 128, 64
PROGRAMS = 528  # four for each multiprocessor of an H200
MAX_K = 64


@triton.jit
def _keep_best(logits, ids, values, kept):
    """Insert what beats the worst kept of each row: logits, ids [M, N]; values, kept [M, K], in no order.

    Equal logits: the lower id stays. Entries still empty have value -inf and distinct ids beyond the vocabulary.
    """
    best = tl.max(logits, axis=1)
    worst = tl.min(values, axis=1)
    num_better = tl.sum((best > worst).to(tl.int32), axis=0)
    while num_better > 0:
        chosen = tl.min(tl.where(logits == best[:, None], ids, 2147483647), axis=1)
        leaving = tl.max(tl.where(values == worst[:, None], kept, -1), axis=1)
        swap = (kept == leaving[:, None]) & (best > worst)[:, None]
        values = tl.where(swap, best[:, None], values)
        kept = tl.where(swap, chosen[:, None], kept)
        logits = tl.where(ids == chosen[:, None], float("-inf"), logits)
        best = tl.max(logits, axis=1)
        worst = tl.min(values, axis=1)
        num_better = tl.sum((best > worst).to(tl.int32), axis=0)
    return values, kept


@triton.jit
def _project(
    hidden, weight, out_values, out_ids, out_top, out_total, num_rows, vocabulary, d_model, tiles,
    K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    here = row < num_rows
    rank = tl.arange(0, K)
    values = tl.full((BLOCK_M, K), float("-inf"), tl.float32)
    kept = tl.zeros((BLOCK_M, K), tl.int32) + (vocabulary + rank)[None, :]
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    line = hidden + row.to(tl.int64)[:, None] * d_model
    for tile in range(part * tiles, (part + 1) * tiles):
        column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        known = column < vocabulary
        strip = weight + column.to(tl.int64)[:, None] * d_model
        logits = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, d_model, BLOCK_K):
            at = start + tl.arange(0, BLOCK_K)
            inside = at < d_model
            x = tl.load(line + at[None, :], mask=here[:, None] & inside[None, :], other=0.0)
            w = tl.load(strip + at[None, :], mask=known[:, None] & inside[None, :], other=0.0)
            logits = tl.dot(x, tl.trans(w), logits, input_precision="ieee")
        logits = tl.where(known[None, :] & here[:, None], logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, axis=1))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(logits - base[:, None]), axis=1)
        top = new_top
        ids = tl.zeros((BLOCK_M, BLOCK_N), tl.int32) + column[None, :]
        values, kept = _keep_best(logits, ids, values, kept)
    place = part.to(tl.int64) * num_rows + row
    tl.store(out_top + place, top, mask=here)
    tl.store(out_total + place, total, mask=here)
    tl.store(out_values + place[:, None] * K + rank[None, :], values, mask=here[:, None])
    tl.store(out_ids + place[:, None] * K + rank[None, :], kept, mask=here[:, None])


@triton.jit
def _join(
    part_values, part_ids, part_top, part_total, log_probs, ids, num_rows, parts, k,
    K: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK_P)
    here = part < parts
    place = part.to(tl.int64) * num_rows + row
    top = tl.load(part_top + place, mask=here, other=float("-inf"))
    most = tl.max(top, axis=0)
    total = tl.sum(tl.exp(top - most) * tl.load(part_total + place, mask=here, other=0.0), axis=0)
    normalizer = most + tl.log(total)
    rank = tl.arange(0, K)
    entry = place[:, None] * K + rank[None, :]
    values = tl.load(part_values + entry, mask=here[:, None], other=float("-inf"))
    found = tl.load(part_ids + entry, mask=here[:, None], other=2147483647)
    for number in range(k):
        best = tl.max(tl.max(values, axis=1), axis=0)
        first = tl.min(tl.min(tl.where(values == best, found, 2147483647), axis=1), axis=0)
        tl.store(log_probs + row * k + number, best - normalizer)
        tl.store(ids + row * k + number, first.to(tl.int64))
        values = tl.where(found == first, float("-inf"), values)


def project_topk(weight: Tensor, hidden: Tensor, k: int, programs: int = PROGRAMS) -> tuple[Tensor, Tensor]:
    """hidden [P, d_model], weight [vocabulary, d_model] → (log-probabilities float32 [P, k], ids int64 [P, k]).

    As in project_topk_ref.py, the logits however stay in float32. k is at most MAX_K and the vocabulary.
    """
    num_rows, d_model = hidden.shape
    vocabulary = weight.shape[0]
    device = hidden.device
    tiles = triton.cdiv(vocabulary, BLOCK_N)
    is_half = hidden.dtype.itemsize == 2
    block_m = min(128 if is_half else 64, max(16, triton.next_power_of_2(num_rows)))
    row_blocks = triton.cdiv(num_rows, block_m)
    tiles_each = triton.cdiv(tiles, max(1, min(tiles, programs // row_blocks)))
    parts = triton.cdiv(tiles, tiles_each)
    width = max(2, triton.next_power_of_2(k))
    values = torch.empty((parts, num_rows, width), dtype=torch.float32, device=device)
    found = torch.empty((parts, num_rows, width), dtype=torch.int32, device=device)
    top = torch.empty((parts, num_rows), dtype=torch.float32, device=device)
    total = torch.empty_like(top)
    # the row blocks of one strip of weights run side by side (the first program id is the faster one), so that only one
    # of them reads it from memory and the others from the L2 cache
    _project[(row_blocks, parts)](
        hidden, weight, values, found, top, total, num_rows, vocabulary, d_model, tiles_each,
        K=width, BLOCK_M=block_m, BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K if is_half else 32,
        num_warps=8 if block_m == 128 else 4,
    )  # fmt: skip
    log_probs = torch.empty((num_rows, k), dtype=torch.float32, device=device)
    ids = torch.empty((num_rows, k), dtype=torch.int64, device=device)
    _join[(num_rows,)](
        values, found, top, total, log_probs, ids, num_rows, parts, k,
        K=width, BLOCK_P=triton.next_power_of_2(parts), num_warps=4 if parts * width < 4096 else 8,
    )  # fmt: skip
    return log_probs, ids
