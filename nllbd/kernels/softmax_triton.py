"""What the attention kernels share: the online softmax, and joining the parts of a history that was split.

(Milakov and Gimelshein 2018; splitting as in flash-decoding, Dao et al. 2023.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def fold(scores, value, top, total, mixed):
    """Take one tile into a running softmax: scores [Q, T] (-inf: masked), value [T, D]; top, total [Q]; mixed [Q, D].

    A row whose scores were all masked so far keeps top = -inf, total = 0, mixed = 0.
    """
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp(scores - base[:, None])
    shrink = tl.exp(top - base)
    total = total * shrink + tl.sum(weights, axis=1)
    mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return new_top, total, mixed


@triton.jit
def _join(out, part, part_top, part_total, num_rows, heads, dim, SPLITS: tl.constexpr, BLOCK_D: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    split = tl.arange(0, SPLITS)
    at = tl.arange(0, BLOCK_D)
    place = (split.to(tl.int64) * num_rows + row) * heads + head
    top = tl.load(part_top + place)
    base = tl.max(top, axis=0)
    weight = tl.where(top == float("-inf"), 0.0, tl.exp(top - tl.where(base == float("-inf"), 0.0, base)))
    total = tl.sum(weight * tl.load(part_total + place), axis=0)
    inside = (top != float("-inf"))[:, None] & (at < dim)[None, :]
    mixed = tl.load(part + place[:, None] * dim + at[None, :], mask=inside, other=0.0)
    value = tl.sum(mixed * weight[:, None], axis=0) / tl.where(total > 0, total, 1.0)
    tl.store(out + (row * heads + head) * dim + at, value.to(out.dtype.element_ty), mask=at < dim)


class Parts:
    """Where the programs of one attention call put their results: in `out` itself unless histories are split.

    part [splits, R, H, D] is not yet divided by total [splits, R, H]; top: the running maxima. All float32.
    Rows that no program wrote must have been marked, hence top starts at -inf.
    """

    def __init__(self, out: Tensor, splits: int) -> None:
        self.out, self.splits = out, splits
        if splits == 1:
            self.part = self.top = self.total = out
            return
        self.part = torch.empty((splits, *out.shape), dtype=torch.float32, device=out.device)
        self.top = torch.full((splits, *out.shape[:2]), -torch.inf, device=out.device)
        self.total = torch.empty_like(self.top)

    def join(self) -> Tensor:
        if self.splits > 1:
            num_rows, heads, dim = self.out.shape
            _join[(num_rows, heads)](
                self.out, self.part, self.top, self.total, num_rows, heads, dim,
                SPLITS=self.splits, BLOCK_D=triton.next_power_of_2(dim), num_warps=1,
            )  # fmt: skip
        return self.out
