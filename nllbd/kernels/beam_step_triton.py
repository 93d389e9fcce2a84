"""One step of beam search for every sequence at once, one program each. Unmeasured.

Its reference is `advance_fixed` in nllbd/engine/search.py, whose docstring has the rules; that form is a few dozen
small operations on the device, each a launch, and this is one. Histories are moved up to the length they have, not to
the capacity they are stored in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_T = 64


@triton.jit
def _pick(chosen, value):
    """value [N] at the one place of each line of chosen [M, N], boolean; 0 where it holds nowhere."""
    return tl.sum(tl.where(chosen, value[None, :], 0), axis=1)


@triton.jit
def _score_scale(length, penalty):
    """length ** penalty, in float64 as the reference has it, then float32."""
    return tl.exp(tl.log(length.to(tl.float64)) * penalty).to(tl.float32)


@triton.jit
def _beam_step(
    log_probs, ids, lane_source, num_beams, max_length, penalty, early_stopping, lengths, tokens, scores, improvable,
    finished, finished_scores, finished_lengths, finished_tokens, ancestor, over, source_stride, lane_stride,
    position_stride, eos_id, K: tl.constexpr, W: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    beams = tl.load(num_beams + sequence)
    if beams == 0:
        return
    if tl.load(over + sequence) != 0:
        return
    length = tl.load(lengths + sequence)
    limit = tl.load(max_length + sequence)
    power = tl.load(penalty + sequence)
    lane_line = sequence * lane_stride  # of columns [S, lanes]
    lane = tl.arange(0, W)
    live = lane < beams

    # the 2·W best of W·K continuations; place r + W holds rank r, the first W places are for the finished ones
    entry = tl.arange(0, W * K)
    source = tl.load(lane_source + sequence * source_stride + entry // K)
    token = tl.load(ids + source * K + entry % K)
    total = tl.load(log_probs + source * K + entry % K) + tl.load(scores + lane_line + entry // K)
    total = tl.where(entry // K < beams, total, float("-inf"))
    place = tl.arange(0, 4 * W)
    rank = place - W
    rank_score = tl.full((4 * W,), float("-inf"), tl.float32)
    rank_parent = tl.zeros((4 * W,), tl.int64)
    rank_token = tl.zeros((4 * W,), tl.int64)
    left = entry >= 0
    for number in tl.static_range(2 * W):
        best = tl.max(tl.where(left, total, float("-inf")), axis=0)
        first = tl.min(tl.where(left & (total == best), entry, W * K - 1), axis=0)
        here = rank == number
        rank_score = tl.where(here, best, rank_score)
        rank_parent = tl.where(here, (first // K).to(tl.int64), rank_parent)
        rank_token = tl.where(here, tl.sum(tl.where(entry == first, token, 0), axis=0), rank_token)
        left = left & (entry != first)
    at_limit = length + 1 >= limit
    candidate = (rank >= 0) & (rank < 2 * W)
    ends = candidate & ((rank_token == eos_id) | at_limit)
    kept = ends & (rank < beams)

    # merge what finished now with what had finished; equal scores: the earlier first
    old = place < W
    old_live = place < beams
    merged_score = tl.load(finished_scores + lane_line + place, mask=old_live & old, other=float("-inf"))
    merged_flag = tl.load(finished + lane_line + place, mask=old_live & old, other=0).to(tl.int32)
    merged_length = tl.load(finished_lengths + lane_line + place, mask=old, other=0)
    merged_score = tl.where(kept, rank_score / _score_scale(length, power), merged_score)
    merged_flag = tl.where(kept, 1, merged_flag)
    merged_length = tl.where(candidate, length + 1, merged_length)
    choice = tl.zeros((W,), tl.int32)
    left_place = old | candidate
    for number in tl.static_range(W):
        best = tl.max(tl.where(left_place, merged_score, float("-inf")), axis=0)
        first = tl.min(tl.where(left_place & (merged_score == best), place, 4 * W - 1), axis=0)
        choice = tl.where(lane == number, first, choice)
        left_place = left_place & (place != first)
    chosen = choice[:, None] == place[None, :]
    new_score = tl.sum(tl.where(chosen & (merged_score > float("-inf"))[None, :], merged_score[None, :], 0.0), axis=1)
    nothing = tl.sum((chosen & (merged_score == float("-inf"))[None, :]).to(tl.int32), axis=1) > 0
    new_score = tl.where(live & (nothing == 0), new_score, float("-inf"))
    new_flag = tl.where(live, _pick(chosen, merged_flag), 0)
    if tl.sum(kept.to(tl.int32), axis=0) > 0:
        is_old = choice < W
        from_lane = tl.where(is_old, choice.to(tl.int64), _pick(chosen, rank_parent))
        last = _pick(chosen, rank_token)
        old_line = finished_tokens + (lane_line + from_lane) * position_stride
        new_line = tokens + (lane_line + from_lane) * position_stride
        for start in range(0, length + 1, BLOCK_T):
            t = start + tl.arange(0, BLOCK_T)
            inside = live[:, None] & (t <= length)[None, :]
            kept_tokens = tl.load(old_line[:, None] + t[None, :], mask=inside & is_old[:, None], other=0)
            fresh = tl.load(new_line[:, None] + t[None, :], mask=inside & (t < length)[None, :], other=0)
            fresh = tl.where((t == length)[None, :], last[:, None], fresh)
            tl.debug_barrier()  # all lanes are read before any is overwritten
            line = finished_tokens + (lane_line + lane.to(tl.int64)) * position_stride
            tl.store(line[:, None] + t[None, :], tl.where(is_old[:, None], kept_tokens, fresh), mask=inside)
        tl.debug_barrier()
        new_length = _pick(chosen, merged_length)
        tl.store(finished_scores + lane_line + lane, new_score, mask=live)
        tl.store(finished + lane_line + lane, new_flag.to(tl.uint8), mask=live)
        tl.store(finished_lengths + lane_line + lane, new_length, mask=live)

    # the best that do not end refill the lanes, each of which writes the next position itself
    open_rank = candidate & (ends == 0) & (rank < 2 * beams)
    choice = tl.zeros((W,), tl.int32)
    for number in tl.static_range(W):
        first = tl.min(tl.where(open_rank, place, 4 * W - 1), axis=0)  # the last place is never a candidate
        choice = tl.where(lane == number, first, choice)
        open_rank = open_rank & (place != first)
    chosen = choice[:, None] == place[None, :]
    parent = _pick(chosen, rank_parent)
    next_token = _pick(chosen, rank_token)
    next_score = tl.sum(tl.where(chosen & candidate[None, :], rank_score[None, :], 0.0), axis=1)
    for start in range(0, length + 1, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        past = live[:, None] & (t < length)[None, :]
        from_line = (lane_line + parent)[:, None] * position_stride + t[None, :]
        to_line = (lane_line + lane.to(tl.int64))[:, None] * position_stride + t[None, :]
        newest = (t == length)[None, :]
        history = tl.where(newest, next_token[:, None], tl.load(tokens + from_line, mask=past, other=0))
        line = tl.where(newest, lane.to(tl.int64)[:, None], tl.load(ancestor + from_line, mask=past, other=0))
        tl.debug_barrier()
        tl.store(tokens + to_line, history, mask=live[:, None] & (t <= length)[None, :])
        tl.store(ancestor + to_line, line, mask=live[:, None] & (t <= length)[None, :])
    tl.debug_barrier()
    tl.store(scores + lane_line + lane, next_score, mask=live)
    tl.store(lengths + sequence, length + 1)

    # is it over?
    mode = tl.load(early_stopping + sequence)
    full = tl.sum(new_flag, axis=0) == beams
    worst = tl.min(tl.where(live, new_score, float("inf")), axis=0)
    reach = tl.where((mode == 2) & (power > 0), limit, length + 1) - 1
    front = tl.sum(tl.where(lane == 0, next_score, 0.0), axis=0)
    bound = front / _score_scale(reach, power)
    hope = (tl.load(improvable + sequence) != 0) & ((full == 0) | (bound > worst))
    done = (hope == 0) | (full & (mode == 1)) | at_limit
    tl.store(improvable + sequence, hope.to(tl.uint8))
    tl.store(over + sequence, done.to(tl.uint8))


def beam_step(
    columns: Mapping[str, Tensor], log_probs: Tensor, ids: Tensor, lane_source: Tensor, num_lanes: int, eos_id: int
) -> None:
    """Extend every sequence by one token, in place.

    columns: those of engine/batch.py and `over` [S]: rows with num_beams 0 or `over` are left alone.
    log_probs, ids: [P, K] best continuations, best first; lane_source: [S, lanes] which of the P rows a lane reads.
    num_lanes (W, a power of two): no sequence has more beams; K = 2·W.
    """
    assert log_probs.shape[1] == 2 * num_lanes
    flags = {name: columns[name].view(torch.uint8) for name in ("improvable", "finished", "over")}
    tokens = columns["tokens"]
    _beam_step[(columns["num_beams"].shape[0],)](
        log_probs, ids, lane_source, columns["num_beams"], columns["max_length"], columns["penalty"],
        columns["early_stopping"], columns["length"], tokens, columns["scores"], flags["improvable"],
        flags["finished"], columns["finished_scores"], columns["finished_lengths"], columns["finished_tokens"],
        columns["ancestor"], flags["over"], lane_source.stride(0), tokens.shape[1], tokens.shape[2], eos_id,
        K=2 * num_lanes, W=num_lanes, BLOCK_T=BLOCK_T, num_warps=1,
    )  # fmt: skip
