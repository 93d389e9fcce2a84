"""Vocabulary projection with log-softmax and top-k, in tiles: plain PyTorch reference.

The [rows, vocabulary] matrix is never written as a whole: each tile of output rows yields its log-sum-exp and its own
top-k, which are merged. This is the hot spot of a decode step (60 % of the weights it reads at 600M).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TILE_ROWS = 8192
RESCORED_FACTOR, RESCORED_SLACK = 4, 8

Tiles = Sequence[Callable[[Tensor], Tensor]]


def project_topk(tiles: Tiles, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """hidden [P, d_model] → (log-probabilities float32 [P, k], token ids int64 [P, k]), best first.

    Each of `tiles` maps hidden to the logits of its rows; together they cover the vocabulary in order.
    Equal log-probabilities come in the order of their token ids.
    """
    logits, ids, normalizer = _scan(tiles, hidden, k)
    logits, ids = _best_first(logits, ids, k)
    return logits - normalizer, ids


def rescored_topk(tiles: Tiles, weight: Tensor, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`project_topk` for tiles that round their logits to half precision; weight: [vocabulary, d_model].

    A bfloat16 logit has steps of 1/16 or 1/8 where the winners lie, so many are equal that should not be. More
    candidates than asked for are taken, and their logits computed again in float32.
    """
    coarse, ids, normalizer = _scan(tiles, hidden, RESCORED_FACTOR * k + RESCORED_SLACK)
    exact = torch.einsum("pd,pkd->pk", hidden.float(), weight[ids].float())
    # the candidates' share of the sum is replaced too: one of them may be nearly all of it
    share = (coarse - normalizer).exp().sum(dim=1, keepdim=True).clamp_(max=1 - 1e-7)
    normalizer = torch.logaddexp(normalizer + torch.log1p(-share), torch.logsumexp(exact, dim=1, keepdim=True))
    exact, ids = _best_first(exact, ids, k)
    return exact - normalizer, ids


def _scan(tiles: Tiles, hidden: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tile by tile: at least the k best logits [P, ≥k] with their ids, in no order, and the log-sum-exp [P, 1]."""
    best: list[Tensor] = []
    best_ids: list[Tensor] = []
    totals: list[Tensor] = []
    offset = 0
    for tile in tiles:
        logits = tile(hidden).float()
        totals.append(torch.logsumexp(logits, dim=1, keepdim=True))
        values, ids = torch.topk(logits, min(k, logits.shape[1]), dim=1)
        best.append(values)
        best_ids.append(ids + offset)
        offset += logits.shape[1]
    normalizer = torch.logsumexp(torch.cat(totals, dim=1), dim=1, keepdim=True)
    return torch.cat(best, dim=1), torch.cat(best_ids, dim=1), normalizer


def _best_first(values: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Order by value, descending, equal values by id, ascending; keep k."""
    ids, order = ids.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids.gather(1, order)[:, :k]
