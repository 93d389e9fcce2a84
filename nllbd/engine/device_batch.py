"""The running batch in buffers of fixed size and place, as CUDA graphs need it: a sequence keeps its slot till it ends.

Owns storage and what is sent to the device. Settings, KV addresses and the arrangement of rows are written on the host
and sent when they changed; the state of the search stays on the device, where a step moves it on.
What the columns mean is batch.py's and search.py's business, what rows mean that of kernels/paged.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.engine.batch import COLUMNS, EARLY_STOPPING, UNLIKELY, SavedRow, corner
from nllbd.engine.rows import common_ancestry
from nllbd.model.paged import PagedRows
from nllbd.sched.sequence import SequenceRequest

SETTINGS = ("num_beams", "max_length", "early_stopping", "cross_length", "penalty")
ROW_FIELDS = ("sequence", "lane", "back", "group_sequence")
ADDRESSES = ("self_table", "cross_slots")  # columns of batch.py that block tables replace here


@dataclass(frozen=True, slots=True)
class BatchSize:
    """What fits: sequences at a time, lanes of one (a power of two), positions of a lane, blocks of its two KV tables,
    rows of a step."""

    sequences: int
    lanes: int
    positions: int
    self_blocks: int
    cross_blocks: int
    rows: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A sequence in the arrangement of a step. fresh: its first step, in which it computes two positions of lane 0."""

    slot: int
    num_beams: int
    fresh: bool


class DeviceBatch:
    """See the module's docstring. Fulfils `search.Columns`: len() and `num_lanes` are what the present step uses."""

    def __init__(self, device: torch.device, size: BatchSize, block_size: int) -> None:
        self.device, self.size, self.block_size = device, size, block_size
        self.num_lanes = 1
        self._length = 1
        sizes = {"rows": size.sequences, "lanes": size.lanes, "positions": size.positions}
        self._host, self._sent = (_Plan(size, place) for place in (torch.device("cpu"), device))
        state = {
            name: torch.zeros([sizes[d] for d in column.dimensions], dtype=column.dtype, device=device)
            for name, column in COLUMNS.items()
            if name not in (*SETTINGS, *ADDRESSES)
        }
        over = torch.zeros(size.sequences, dtype=torch.bool, device=device)
        self.columns: Mapping[str, Tensor] = state | self._sent.settings() | {"over": over}
        self.lane_source = self._sent.lane_source  # [sequences, lanes]: which row's output a lane continues with
        self._blocks = torch.zeros(
            (size.sequences, size.self_blocks + size.cross_blocks), dtype=torch.int64, device=device
        )
        self._new_blocks: list[tuple[int, int, int]] = []
        self._changed = True

    def __len__(self) -> int:
        return self._length

    def view(self, name: str) -> Tensor:
        """A column's rows and lanes in use."""
        tensor = self.columns[name][: self._length]
        is_wide = name in COLUMNS and "lanes" in COLUMNS[name].dimensions
        return tensor[:, : self.num_lanes] if is_wide else tensor

    # Sequences come and go

    def start(self, slots: Sequence[int], requests: Sequence[SequenceRequest], start_id: int) -> None:
        """Give free slots to sequences in the state `[</s>, code]`; `restore` may follow."""
        for slot, request in zip(slots, requests, strict=True):
            params = request.params
            self._host.num_beams[slot] = params.num_beams
            self._host.max_length[slot] = params.max_length
            # one beam is greedy search: it ends with its first finished hypothesis
            self._host.early_stopping[slot] = EARLY_STOPPING[True if params.num_beams == 1 else params.early_stopping]
            self._host.cross_length[slot] = len(request.source_ids)
            self._host.penalty[slot] = params.length_penalty
        self._changed = True
        where, targets = self._send(torch.tensor([list(slots), [request.target_id for request in requests]])).unbind(0)
        column = self.columns
        for name, value in (("length", 2), ("improvable", True), ("finished", False), ("over", False)):
            column[name].index_fill_(0, where, value)
        column["finished_scores"].index_fill_(0, where, -torch.inf)
        column["scores"].index_fill_(0, where, UNLIKELY)
        column["scores"][:, 0].index_fill_(0, where, 0.0)
        column["ancestor"][:, :, :2].index_fill_(0, where, 0)
        column["tokens"][:, :, 0].index_fill_(0, where, start_id)
        column["tokens"][:, :, 1].index_copy_(0, where, targets[:, None].expand(-1, self.size.lanes))

    def free(self, slot: int) -> None:
        """Empty a slot."""
        self._host.num_beams[slot] = 0
        self._changed = True

    def clear(self) -> None:
        """Empty all slots."""
        self._host.num_beams.zero_()
        self._new_blocks = []
        self._changed = True

    def set_cross_blocks(self, slot: int, blocks: Sequence[int]) -> None:
        self._new_blocks += ((slot, self.size.self_blocks + i, block) for i, block in enumerate(blocks))

    def add_self_blocks(self, slot: int, first: int, blocks: Sequence[int]) -> None:
        """Blocks first, first + 1, … of a sequence's self KV."""
        self._new_blocks += ((slot, first + i, block) for i, block in enumerate(blocks))

    def save(self, slot: int, num_beams: int, length: int) -> SavedRow:
        """Copies of what a preempted sequence must keep, cut to its own size, in host memory. Waits for the device."""
        extent = {"lanes": num_beams, "positions": length}
        return {
            name: corner(self.columns[name][slot], [extent[d] for d in column.dimensions[1:]]).to("cpu", copy=True)
            for name, column in COLUMNS.items()
            if column.kept
        }

    def restore(self, slot: int, saved: SavedRow) -> Tensor:
        """Put a saved search state into a slot that was just started; returns its ancestry [lanes, positions]."""
        for name, tensor in saved.items():
            corner(self.columns[name][slot], tensor.shape).copy_(tensor)
        ancestor = common_ancestry(saved["tokens"])
        corner(self.columns["ancestor"][slot], ancestor.shape).copy_(ancestor)
        return ancestor

    def read_finished(self, slots: Sequence[int], lanes: int, positions: int) -> Tensor:
        """What sequences finished: int64 [slots, lanes, 2 + positions], in host memory.

        Along the last dimension: the bits of the score as float64, the length, the tokens. Waits for the stream in use.
        """
        where = self._send(torch.tensor(list(slots)))
        scores, lengths, tokens = (
            self.columns[name][:, :lanes].index_select(0, where)
            for name in ("finished_scores", "finished_lengths", "finished_tokens")
        )
        bits = scores.double().view(torch.int64)
        return torch.cat([bits[:, :, None], lengths[:, :, None], tokens[:, :, :positions]], dim=2).cpu()

    # A step

    def arrange(self, placed: Sequence[Placed]) -> int:
        """Lay out the rows of a step; returns how many there are. Sequences are in the order of their slots."""
        slots = torch.tensor([item.slot for item in placed])
        beams = torch.tensor([item.num_beams for item in placed])
        fresh = torch.tensor([item.fresh for item in placed])
        counts = torch.where(fresh, 2, beams)
        starts = counts.cumsum(0) - counts
        num_rows, host = int(counts.sum()), self._host
        of_row = torch.repeat_interleave(torch.arange(len(placed)), counts)
        offset = torch.arange(num_rows) - starts[of_row]
        host.rows.fill_(-1)
        host.sequence[:num_rows] = slots[of_row]
        host.lane[:num_rows] = torch.where(fresh[of_row], 0, offset)
        host.back[:num_rows] = torch.where(fresh[of_row], 1 - offset, 0)
        host.group_sequence[: len(placed)] = slots
        member = torch.arange(host.group_rows.shape[1])
        host.group_rows.fill_(-1)
        host.group_rows[: len(placed)] = torch.where(member < counts[:, None], starts[:, None] + member, -1)
        lane = torch.minimum(torch.arange(self.size.lanes), beams[:, None] - 1)
        host.lane_source.zero_()
        host.lane_source[slots] = starts[:, None] + torch.where(fresh[:, None], 1, lane)
        self._changed = True
        self._length = int(slots.max()) + 1
        self.num_lanes = 1 << (int(beams.max()) - 1).bit_length()
        return num_rows

    def flush(self) -> None:
        """Send what changed since the last time."""
        if self._changed:
            self._sent.flat.copy_(self._send(self._host.flat))
            self._changed = False
        if self._new_blocks:
            slots, places, blocks = self._send(torch.tensor(self._new_blocks).T.contiguous()).unbind(0)
            self._blocks.index_put_((slots, places), blocks)
            self._new_blocks = []

    def rows(self, num_rows: int, num_lanes: int, splits: int) -> PagedRows:
        """The first `num_rows` rows as they lie on the device, for sequences of at most `num_lanes`."""
        sent = self._sent
        fields = {name: getattr(sent, name)[:num_rows] for name in ROW_FIELDS}
        return self._paged(fields, sent.group_rows[:num_rows, : max(2, num_lanes)], splits)

    def prefill_rows(self, slot: int, ancestor: Tensor) -> PagedRows:
        """Rows for all positions of a sequence but the newest, each computed by the lane that wrote it.

        ancestor: [lanes, length].
        """
        length = ancestor.shape[1]
        own = ancestor == torch.arange(len(ancestor))[:, None]
        lane, position = own[:, : length - 1].nonzero(as_tuple=True)
        width = max(2, self.size.lanes)
        num_groups = -(-len(lane) // width)
        members = torch.full((num_groups * width,), -1)
        members[: len(lane)] = torch.arange(len(lane))
        values = {
            "sequence": torch.full_like(lane, slot),
            "lane": lane,
            "back": length - 1 - position,
            "group_sequence": torch.full((num_groups,), slot),
        }
        fields = {name: self._send(value) for name, value in values.items()}
        return self._paged(fields, self._send(members.view(num_groups, width)), splits=1)

    def _paged(self, fields: dict[str, Tensor], group_rows: Tensor, splits: int) -> PagedRows:
        column = self.columns
        return PagedRows(
            **fields,
            group_rows=group_rows,
            length=column["length"],
            num_beams=column["num_beams"],
            cross_length=column["cross_length"],
            tokens=column["tokens"],
            ancestor=column["ancestor"],
            self_table=self._blocks[:, : self.size.self_blocks],
            cross_table=self._blocks[:, self.size.self_blocks :],
            block_size=self.block_size,
            splits=splits,
        )

    def _send(self, host: Tensor) -> Tensor:
        """A copy on the device, without waiting for it."""
        if self.device.type != "cuda":
            return host.clone()
        return host.pin_memory().to(self.device, non_blocking=True)


class _Plan:
    """Everything the host decides, in one flat buffer that is sent in one copy; the same layout on both sides."""

    def __init__(self, size: BatchSize, device: torch.device) -> None:
        width = max(2, size.lanes)
        shapes = {
            "settings": (len(SETTINGS), size.sequences),
            "rows": (len(ROW_FIELDS), size.rows),
            "group_rows": (size.rows, width),
            "lane_source": (size.sequences, size.lanes),
        }
        counts = [rows * columns for rows, columns in shapes.values()]
        self.flat = torch.zeros(sum(counts), dtype=torch.int64, device=device)
        parts = dict(zip(shapes, self.flat.split(counts), strict=True))  # type: ignore[no-untyped-call]
        self.rows, self.group_rows, self.lane_source = (
            parts[name].view(shapes[name]) for name in ("rows", "group_rows", "lane_source")
        )
        self.sequence, self.lane, self.back, self.group_sequence = self.rows.unbind(0)
        self.num_beams, self.max_length, self.early_stopping, self.cross_length, penalty = (
            parts["settings"].view(shapes["settings"]).unbind(0)
        )
        self.penalty = penalty.view(torch.float64)
        for unused in (self.rows, self.group_rows):
            unused.fill_(-1)

    def settings(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in SETTINGS}
