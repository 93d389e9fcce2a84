"""The running batch as columns: one compact row a sequence, so that a step does no work per lane in Python.

Owns storage (adding, removing, growing, saving and restoring rows). What the columns mean for the search is search.py's
business, what they mean for KV addresses is rows.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.sched.sequence import SequenceRequest

UNLIKELY = -1.0e9  # the score transformers gives to the start lanes that must not win
EARLY_STOPPING = {False: 0, True: 1, "never": 2}
FIRST_DIMENSIONS = {"rows": 16, "lanes": 1, "positions": 64, "blocks": 8, "source": 32}


@dataclass(frozen=True, slots=True)
class Column:
    """One tensor of the batch: its dimensions by name, and whether a preempted sequence keeps it."""

    dimensions: tuple[str, ...]
    dtype: torch.dtype
    kept: bool = False


COLUMNS: Mapping[str, Column] = {
    # settings of the search
    "num_beams": Column(("rows",), torch.int64),
    "max_length": Column(("rows",), torch.int64),
    "penalty": Column(("rows",), torch.float64),
    "early_stopping": Column(("rows",), torch.int64),
    # state of the search; length counts the initial </s> and the language code
    "length": Column(("rows",), torch.int64, kept=True),
    "tokens": Column(("rows", "lanes", "positions"), torch.int64, kept=True),
    "scores": Column(("rows", "lanes"), torch.float32, kept=True),
    "improvable": Column(("rows",), torch.bool, kept=True),
    "finished": Column(("rows", "lanes"), torch.bool, kept=True),
    "finished_scores": Column(("rows", "lanes"), torch.float32, kept=True),
    "finished_lengths": Column(("rows", "lanes"), torch.int64, kept=True),
    "finished_tokens": Column(("rows", "lanes", "positions"), torch.int64, kept=True),
    # KV addresses: which lane wrote each position, blocks of the self KV, slots of the cross KV
    "ancestor": Column(("rows", "lanes", "positions"), torch.int64),
    "self_table": Column(("rows", "blocks"), torch.int64),
    "cross_slots": Column(("rows", "source"), torch.int64),
    "cross_length": Column(("rows",), torch.int64),
}

SavedRow = dict[str, Tensor]


class Batch:
    """Rows 0..len-1 are the running sequences, in no particular order; removal moves rows down.

    `columns[name]` has capacity beyond the live rows: use `view(name)` for the live part.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seq_ids: list[int] = []
        self.requests: list[SequenceRequest] = []
        self.num_blocks: list[int] = []
        self.rows: dict[int, int] = {}
        self.num_lanes = 1  # of the widest sequence: the width of lane dimensions in use
        self._size = dict(FIRST_DIMENSIONS)
        self.columns = {name: self._allocate(column) for name, column in COLUMNS.items()}

    def __len__(self) -> int:
        return len(self.seq_ids)

    def view(self, name: str) -> Tensor:
        """The live rows of a column; lane dimensions cut to `num_lanes`."""
        tensor = self.columns[name][: len(self)]
        return tensor[:, : self.num_lanes] if "lanes" in COLUMNS[name].dimensions else tensor

    def append(self, request: SequenceRequest, cross_slots: Sequence[int], blocks: Sequence[int]) -> int:
        """Add a row in the start state `[</s>, code]`; returns its index. `restore` may follow."""
        row = len(self)
        params = request.params
        self._reserve(rows=row + 1, lanes=params.num_beams, blocks=len(blocks), source=len(cross_slots), positions=3)
        self.seq_ids.append(request.seq_id)
        self.requests.append(request)
        self.num_blocks.append(0)
        self.rows[request.seq_id] = row
        self.num_lanes = max(self.num_lanes, params.num_beams)
        column = self.columns
        column["num_beams"][row] = params.num_beams
        column["max_length"][row] = params.max_length
        column["penalty"][row] = params.length_penalty
        # one beam is greedy search: it ends with its first finished hypothesis
        column["early_stopping"][row] = EARLY_STOPPING[True if params.num_beams == 1 else params.early_stopping]
        column["length"][row] = 2
        column["scores"][row] = UNLIKELY
        column["scores"][row, 0] = 0.0
        column["improvable"][row] = True
        column["finished"][row] = False
        column["finished_scores"][row] = -torch.inf
        column["ancestor"][row] = 0
        column["cross_slots"][row] = cross_slots[0]
        column["cross_slots"][row, : len(cross_slots)] = torch.tensor(cross_slots, device=self.device)
        column["cross_length"][row] = len(cross_slots)
        self.grow(request.seq_id, blocks)
        return row

    def grow(self, seq_id: int, blocks: Sequence[int]) -> None:
        """Append blocks to a sequence's self KV table."""
        row = self.rows[seq_id]
        have = self.num_blocks[row]
        self._reserve(blocks=have + len(blocks))
        self.columns["self_table"][row, have : have + len(blocks)] = torch.tensor(blocks, device=self.device)
        self.num_blocks[row] = have + len(blocks)

    def reserve_positions(self, positions: int) -> None:
        """Make room for hypotheses of `positions` tokens."""
        self._reserve(positions=positions)

    def save(self, seq_id: int) -> SavedRow:
        """Copies of what a preempted sequence must keep, cut to its own size, in host memory."""
        row = self.rows[seq_id]
        extent = {"lanes": self.requests[row].params.num_beams, "positions": int(self.columns["length"][row])}
        return {
            name: corner(self.columns[name][row], [extent[d] for d in column.dimensions[1:]]).to("cpu", copy=True)
            for name, column in COLUMNS.items()
            if column.kept
        }

    def restore(self, row: int, saved: SavedRow) -> None:
        """Put a saved search state into a row that was just appended."""
        self._reserve(positions=int(saved["length"]) + 1)
        for name, tensor in saved.items():
            corner(self.columns[name][row], tensor.shape).copy_(tensor)

    def remove(self, seq_ids: Iterable[int]) -> None:
        """Drop rows and close the gaps. Unknown ids are ignored."""
        gone = {self.rows[seq_id] for seq_id in seq_ids if seq_id in self.rows}
        if not gone:
            return
        keep = [row for row in range(len(self)) if row not in gone]
        index = torch.tensor(keep, dtype=torch.int64, device=self.device)
        for tensor in self.columns.values():
            tensor[: len(keep)] = tensor[index]
        self.seq_ids = [self.seq_ids[row] for row in keep]
        self.requests = [self.requests[row] for row in keep]
        self.num_blocks = [self.num_blocks[row] for row in keep]
        self.num_lanes = max((request.params.num_beams for request in self.requests), default=1)
        self.rows = {seq_id: row for row, seq_id in enumerate(self.seq_ids)}

    def _reserve(self, **needed: int) -> None:
        """Enlarge dimensions (to the next power of two) where `needed` exceeds them, keeping what is there."""
        short = {name: size for name, size in needed.items() if size > self._size[name]}
        if not short:
            return
        for name, size in short.items():
            self._size[name] = 1 << (size - 1).bit_length()
        for name, column in COLUMNS.items():
            if not any(dimension in short for dimension in column.dimensions):
                continue
            old = self.columns[name]
            self.columns[name] = self._allocate(column)
            corner(self.columns[name], old.shape).copy_(old)

    def _allocate(self, column: Column) -> Tensor:
        shape = tuple(self._size[dimension] for dimension in column.dimensions)
        return torch.zeros(shape, dtype=column.dtype, device=self.device)


def corner(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The leading part of `tensor` with the given shape, as a view."""
    for dimension, size in enumerate(shape):
        tensor = tensor.narrow(dimension, 0, size)
    return tensor
