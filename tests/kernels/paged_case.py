"""Random decode passes for the kernel tests: sequences of mixed beams and lengths in blocks that are not in order."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.kernels.paged import PagedRows
from tests.kernels.interpreter import use_interpreter

use_interpreter()

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass
class Case:
    """keys, values: [num_slots, H, D], NaN wherever no row may look."""

    rows: PagedRows
    keys: Tensor
    values: Tensor


def make_case(
    dtype: torch.dtype,
    *,
    heads: int = 3,
    dim: int = 16,
    beams: tuple[int, ...] = (1, 4, 0, 3),
    max_length: int = 20,
    max_source: int = 9,
    block_size: int = 4,
    empty_rows: int = 2,
    splits: int = 1,
    seed: int = 0,
) -> Case:
    """One sequence for each of `beams` (0: a free place), random lengths up to the maxima, the longest among them."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    lanes = max(beams)
    count = len(beams)
    lengths = [rng.randint(2, max_length) for _ in beams]
    sources = [rng.randint(1, max_source) for _ in beams]
    lengths[-1], sources[-1] = max_length, max_source
    self_blocks = -(-lanes * max_length // block_size)
    cross_blocks = -(-max_source // block_size)
    numbers = list(range(count * (self_blocks + cross_blocks) + 3))
    rng.shuffle(numbers)
    take = iter(numbers)
    table = torch.tensor([[next(take) for _ in range(self_blocks)] for _ in beams])
    cross_table = torch.tensor([[next(take) for _ in range(cross_blocks)] for _ in beams])
    ancestor = torch.randint(0, 1 << 20, (count, lanes, max_length + 2), generator=generator)
    shape = (len(numbers) * block_size, heads, dim)
    keys, values = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    sequence: list[int] = []
    lane: list[int] = []
    groups: list[list[int]] = []
    group_sequence: list[int] = []
    for number, width in enumerate(beams):
        if not width:
            continue
        ancestor[number] %= width
        ancestor[number, torch.arange(width), lengths[number] - 1] = torch.arange(width)
        slots = [_slot(table[number], t * width + i, block_size) for t in range(lengths[number]) for i in range(width)]
        slots += [_slot(cross_table[number], t, block_size) for t in range(sources[number])]
        keys[slots], values[slots] = torch.randn(2, len(slots), heads, dim, generator=generator).unbind(0)
        groups.append(list(range(len(sequence), len(sequence) + width)) + [-1] * (lanes - width))
        group_sequence.append(number)
        sequence += [number] * width
        lane += range(width)
    sequence += [-1] * empty_rows
    lane += [-1] * empty_rows
    rows = PagedRows(
        sequence=torch.tensor(sequence),
        lane=torch.tensor(lane),
        back=torch.zeros(len(sequence), dtype=torch.int64),
        group_sequence=torch.tensor([*group_sequence, -1]),
        group_rows=torch.tensor([*groups, [-1] * lanes]),
        length=torch.tensor(lengths),
        num_beams=torch.tensor(beams),
        cross_length=torch.tensor(sources),
        tokens=torch.randint(0, 50, (count, lanes, max_length + 2), generator=generator),
        ancestor=ancestor,
        self_table=table,
        cross_table=cross_table,
        block_size=block_size,
        splits=splits,
    )
    return Case(on_device(rows), keys.to(DEVICE, dtype), values.to(DEVICE, dtype))


def on_device(rows: PagedRows) -> PagedRows:
    values = {name: getattr(rows, name) for name in PagedRows.__slots__}
    return PagedRows(**{k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in values.items()})


def _slot(table: Tensor, slot: int, block_size: int) -> int:
    return int(table[slot // block_size]) * block_size + slot % block_size
