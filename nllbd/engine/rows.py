"""From the batch to the decoder's rows: which (sequence, lane, position) each row computes, and its KV addresses.

A *layout* says which rows a step has and does not change from step to step unless sequences come or go; the addresses
are worked out from it and the batch's columns every step, without a loop in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.engine.batch import Batch
from nllbd.model.decoder import DecoderRows


@dataclass(frozen=True, slots=True)
class Layout:
    """R rows, G cross-attention groups, P rows that are projected onto the vocabulary.

    sequence, lane, back: [R]; a row computes position length - 1 - back (decode rows: 0).
    group_sequence: [G]. group_rows: [G, W]. row_places: [R].
    projected: [P] row indices, or None for all rows in order. lane_source: [S, W] which of the P rows each lane reads.
    """

    sequence: Tensor
    lane: Tensor
    back: Tensor
    group_sequence: Tensor
    group_rows: Tensor
    row_places: Tensor
    projected: Tensor | None
    lane_source: Tensor


def decode_layout(batch: Batch) -> Layout:
    """One row for every lane of every sequence."""
    return _layout(batch, frozenset())


def prefill_layout(batch: Batch, fresh: Sequence[int]) -> Layout:
    """Like `decode_layout`, but the rows in `fresh` (batch rows) compute all their positions.

    Lanes with a common past compute it once: of the positions a lane has, it computes those it is the ancestor of.
    """
    return _layout(batch, frozenset(fresh))


def share_ancestry(batch: Batch, row: int) -> None:
    """Set the ancestry of a sequence whose KV is to be recomputed: equal prefixes belong to the lowest lane."""
    num_beams = batch.requests[row].params.num_beams
    length = int(batch.columns["length"][row])
    batch.columns["ancestor"][row, :num_beams, :length] = common_ancestry(
        batch.columns["tokens"][row, :num_beams, :length]
    )


def common_ancestry(tokens: Tensor) -> Tensor:
    """tokens [lanes, length] → [lanes, length], the lowest lane with the same tokens up to each position."""
    same_prefix = (tokens[:, None, :] == tokens[None, :, :]).long().cumprod(dim=2)
    return same_prefix.argmax(dim=1)


def _layout(batch: Batch, fresh: frozenset[int]) -> Layout:
    sequence: list[int] = []
    lane: list[int] = []
    back: list[int] = []
    groups: list[list[int]] = []
    group_sequence: list[int] = []
    projected: list[int] = []
    lane_source: list[list[int]] = []
    width = batch.num_lanes
    group_width = max(width, 2)
    for row, request in enumerate(batch.requests):
        num_beams = request.params.num_beams
        cells, owners = _fresh_cells(batch, row) if row in fresh else ([(i, 0) for i in range(num_beams)], None)
        first = len(sequence)
        sequence += [row] * len(cells)
        lane += [cell[0] for cell in cells]
        back += [cell[1] for cell in cells]
        numbers = range(first, first + len(cells))
        for start in range(0, len(cells), group_width):
            groups.append(list(numbers[start : start + group_width]))
            group_sequence.append(row)
        newest = {cell[0]: len(projected) + i for i, cell in enumerate(cell for cell in cells if cell[1] == 0)}
        projected += [number for number, cell in zip(numbers, cells, strict=True) if cell[1] == 0]
        source = [newest[owner] for owner in (owners or range(num_beams))]
        lane_source.append(source + [source[0]] * (width - num_beams))
    return _to_tensors(batch, sequence, lane, back, groups, group_sequence, projected, lane_source)


def _fresh_cells(batch: Batch, row: int) -> tuple[list[tuple[int, int]], list[int]]:
    """(lane, back) of each position to compute, and which lane computed each lane's last position."""
    num_beams = batch.requests[row].params.num_beams
    length = int(batch.columns["length"][row])
    ancestor = batch.columns["ancestor"][row, :num_beams, :length].tolist()
    cells = [(i, length - 1 - t) for i in range(num_beams) for t in range(length) if ancestor[i][t] == i]
    return cells, [lane[-1] for lane in ancestor]


def _to_tensors(
    batch: Batch,
    sequence: list[int],
    lane: list[int],
    back: list[int],
    groups: list[list[int]],
    group_sequence: list[int],
    projected: list[int],
    lane_source: list[list[int]],
) -> Layout:
    width = max(map(len, groups))
    places = [g * width + w for g, members in enumerate(groups) for w in range(len(members))]

    def tensor(values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, device=batch.device)

    return Layout(
        sequence=tensor(sequence),
        lane=tensor(lane),
        back=tensor(back),
        group_sequence=tensor(group_sequence),
        group_rows=tensor([members + [0] * (width - len(members)) for members in groups]),
        row_places=tensor(places),
        projected=None if len(projected) == len(sequence) else tensor(projected),
        lane_source=tensor(lane_source),
    )


def decoder_rows(batch: Batch, layout: Layout, block_size: int) -> DecoderRows:
    """Tokens, positions and KV slots of the layout's rows (slot arithmetic: sched/plan.py).

    Places beyond a row's length repeat its first slot: masked, but never a slot that was not written.
    """
    sequence, lane = layout.sequence, layout.lane
    position = batch.view("length")[sequence] - 1 - layout.back
    num_positions = int(batch.view("length").max())
    beams = batch.view("num_beams")[sequence]
    table = batch.view("self_table")[sequence]
    ancestor = batch.view("ancestor")[sequence, lane, :num_positions]
    history = torch.arange(num_positions, device=batch.device)
    slot = history[None, :] * beams[:, None] + ancestor
    slots = table.gather(1, (slot // block_size).clamp_(max=table.shape[1] - 1)) * block_size + slot % block_size
    slots = torch.where(history[None, :] <= position[:, None], slots, slots[:, :1])
    own = position * beams + lane
    write_slots = table.gather(1, (own // block_size)[:, None]).squeeze(1) * block_size + own % block_size
    cross_length = batch.view("cross_length")[layout.group_sequence]
    cross_slots = batch.view("cross_slots")[layout.group_sequence, : int(cross_length.max())]
    return DecoderRows(
        tokens=batch.view("tokens")[sequence, lane, position],
        positions=position,
        write_slots=write_slots,
        self_slots=slots,
        self_lengths=position + 1,
        cross_slots=cross_slots,
        cross_lengths=cross_length,
        group_rows=layout.group_rows,
        row_places=layout.row_places,
    )
