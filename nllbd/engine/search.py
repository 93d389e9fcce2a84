"""Beam search over the whole batch at once, by the rules of transformers' `_beam_search` (greedy: `_sample`).

Every sequence has its own beams, penalty, early stopping and maximum length; none sees another's. Each step looks at
the 2·num_beams best continuations of a sequence:
- those that end it (`</s>`, or any token at max_length) are kept as finished if they rank among the first num_beams,
  with score / Lᵖ, L counting the language code and `</s>` but not the initial `</s>`;
- the best num_beams others refill all lanes.
It stops when num_beams are finished (early stopping), or when the best running lane can no longer beat the worst of
num_beams finished ones, judged at the present length (False) or at max_length ("never", if p > 0); this is sticky.
Exact ties go to the lower lane, then the lower token id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nllbd.engine.batch import EARLY_STOPPING, Batch
from nllbd.sched.plan import FinishedSequence
from nllbd.sched.sequence import Hypothesis, SequenceRequest


class Columns(Protocol):
    """What the search needs of a batch: the columns of batch.py, cut to the rows and lanes in use by `view`."""

    num_lanes: int
    device: torch.device

    @property
    def columns(self) -> Mapping[str, Tensor]: ...

    def view(self, name: str) -> Tensor: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best 2·W continuations of each sequence, best first: all [S, 2·W].

    `ends`: the continuation ends its hypothesis. `kept`: it does, and ranks high enough to count.
    """

    scores: Tensor
    parents: Tensor
    tokens: Tensor
    ends: Tensor
    kept: Tensor


def advance(batch: Batch, log_probs: Tensor, ids: Tensor, eos_id: int) -> list[int]:
    """Extend every sequence by one token; returns the rows whose search is over.

    log_probs, ids: [S, W, K] the K ≥ 2·W best continuations of each lane, best first.
    """
    width = int(batch.view("length").max()) + 1
    batch.reserve_positions(width)
    candidates = _rank(batch, log_probs, ids, eos_id)
    hit = candidates.kept.any(dim=1).nonzero().squeeze(1)
    if hit.numel():
        _keep_finished(batch, candidates, hit, width)
    at_limit = batch.view("length") + 1 >= batch.view("max_length")
    _refill_lanes(batch, candidates, width)
    over: list[int] = _is_over(batch, at_limit).nonzero().squeeze(1).tolist()
    return over


def advance_fixed(batch: Columns, log_probs: Tensor, ids: Tensor, eos_id: int) -> None:
    """`advance` for a batch of fixed shapes, in which rows may be empty (no beams) or over: those finish nothing more.

    The batch has room for the next token, and a column `over` [S] that tells the outcome; nothing waits for the
    device. The reference of kernels/beam_step_triton.py.
    """
    width = batch.columns["tokens"].shape[2]
    idle = (batch.view("num_beams") == 0) | batch.view("over")
    candidates = _rank(batch, log_probs, ids, eos_id)
    candidates.kept.masked_fill_(idle[:, None], False)
    _keep_finished(batch, candidates, slice(0, len(batch)), width)
    at_limit = batch.view("length") + 1 >= batch.view("max_length")
    _refill_lanes(batch, candidates, width)
    over = _is_over(batch, at_limit)
    batch.view("over").logical_or_(over & ~idle)
    batch.view("length").sub_(idle.long())


def _rank(batch: Columns, log_probs: Tensor, ids: Tensor, eos_id: int) -> Candidates:
    num_sequences, num_lanes, per_lane = log_probs.shape
    beams = batch.view("num_beams")
    total = log_probs + batch.view("scores")[:, :, None]
    total.masked_fill_(~_live(beams, num_lanes)[:, :, None], -torch.inf)
    scores, order = total.view(num_sequences, -1).sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, : 2 * num_lanes], order[:, : 2 * num_lanes]
    tokens = ids.reshape(num_sequences, -1).gather(1, order)
    at_limit = batch.view("length") + 1 >= batch.view("max_length")
    ends = (tokens == eos_id) | at_limit[:, None]
    return Candidates(scores, order // per_lane, tokens, ends, ends & _live(beams, 2 * num_lanes))


def _live(beams: Tensor, width: int) -> Tensor:
    """[S, width] boolean: places below each sequence's own number of beams."""
    return torch.arange(width, device=beams.device)[None, :] < beams[:, None]


def _keep_finished(batch: Columns, candidates: Candidates, hit: Tensor | slice, width: int) -> None:
    """Merge the newly finished hypotheses of rows `hit` with those already finished; keep the best num_beams."""
    length = batch.view("length")[hit]
    scale = length.double().pow(batch.view("penalty")[hit]).float()
    fresh = (candidates.scores[hit] / scale[:, None]).masked_fill(~candidates.kept[hit], -torch.inf)
    num_lanes = batch.num_lanes
    live = _live(batch.view("num_beams")[hit], num_lanes)
    earlier = batch.view("finished_scores")[hit].masked_fill(~live, -torch.inf)
    scores, pick = torch.cat([earlier, fresh], dim=1).sort(dim=1, descending=True, stable=True)
    scores, pick = scores[:, :num_lanes], pick[:, :num_lanes]

    tokens = batch.view("tokens")[hit, :, :width]
    extended = tokens.gather(1, candidates.parents[hit][:, :, None].expand(-1, -1, width))
    place = length[:, None, None].expand(-1, extended.shape[1], 1)
    extended.scatter_(2, place, candidates.tokens[hit][:, :, None])
    every = torch.cat([batch.view("finished_tokens")[hit, :, :width], extended], dim=1)
    lengths = (length + 1)[:, None].expand(-1, extended.shape[1])
    every_length = torch.cat([batch.view("finished_lengths")[hit], lengths], dim=1)
    every_flag = torch.cat([batch.view("finished")[hit], candidates.kept[hit]], dim=1)

    column = batch.columns
    column["finished_scores"][hit, :num_lanes] = scores.masked_fill(~live, -torch.inf)
    column["finished"][hit, :num_lanes] = every_flag.gather(1, pick) & live
    column["finished_lengths"][hit, :num_lanes] = every_length.gather(1, pick)
    column["finished_tokens"][hit, :num_lanes, :width] = every.gather(1, pick[:, :, None].expand(-1, -1, width))


def _refill_lanes(batch: Columns, candidates: Candidates, width: int) -> None:
    """Continue with the best num_beams candidates that do not end; each lane writes the next position itself."""
    num_lanes = batch.num_lanes
    blocked = candidates.ends | ~_live(2 * batch.view("num_beams"), 2 * num_lanes)
    choice = blocked.to(torch.int8).sort(dim=1, stable=True).indices[:, :num_lanes]
    parents = candidates.parents.gather(1, choice)
    length = batch.view("length")
    place = length[:, None, None].expand(-1, num_lanes, 1)
    lane = torch.arange(num_lanes, device=batch.device)
    batch.view("scores").copy_(candidates.scores.gather(1, choice))
    written = {"tokens": candidates.tokens.gather(1, choice), "ancestor": lane.expand(len(batch), -1)}
    for name, newest in written.items():
        history = batch.view(name)[:, :, :width]
        history.copy_(
            history.gather(1, parents[:, :, None].expand(-1, -1, width)).scatter_(2, place, newest[:, :, None])
        )
    length += 1


def _is_over(batch: Columns, at_limit: Tensor) -> Tensor:
    """[S] boolean, after lanes and finished hypotheses were updated."""
    penalty, mode = batch.view("penalty"), batch.view("early_stopping")
    spare = ~_live(batch.view("num_beams"), batch.num_lanes)
    full = (batch.view("finished") | spare).all(dim=1)
    worst = batch.view("finished_scores").masked_fill(spare, torch.inf).amin(dim=1)
    hopeful = (mode == EARLY_STOPPING["never"]) & (penalty > 0)
    reach = torch.where(hopeful, batch.view("max_length"), batch.view("length")) - 1
    bound = batch.view("scores")[:, 0] / reach.double().pow(penalty).float()
    improvable = batch.view("improvable")
    improvable &= ~full | (bound > worst)
    return ~improvable | (full & (mode == EARLY_STOPPING[True])) | at_limit


def finished_sequence(batch: Batch, row: int, eos_id: int) -> FinishedSequence:
    """The outcome of a row whose search is over: its finished hypotheses, best first."""
    column = batch.columns
    scores, lengths = (column[name][row].tolist() for name in ("finished_scores", "finished_lengths"))
    return make_finished(batch.requests[row], scores, lengths, column["finished_tokens"][row], eos_id)


def make_finished(
    request: SequenceRequest, scores: Sequence[float], lengths: Sequence[int], tokens: Tensor, eos_id: int
) -> FinishedSequence:
    """scores, lengths: of each lane's finished hypothesis, best first; tokens: [lanes, positions]."""
    count = min(request.params.num_hypotheses, request.params.num_beams)
    hypotheses = tuple(Hypothesis(tuple(tokens[k, 1 : lengths[k]].tolist()), scores[k]) for k in range(count))
    return FinishedSequence(request.seq_id, hypotheses, truncated=hypotheses[0].token_ids[-1] != eos_id)
