"""What a runner that reads its results a step late keeps on the host: who is on board, and since when.

Standard values and one flag tensor; knows nothing of kernels or graphs. A *launch* is a step given to the device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nllbd.engine.batch import SavedRow
from nllbd.sched.plan import FinishedSequence
from nllbd.sched.sequence import SequenceRequest

START_LENGTH = 2  # </s> and the language code, decided before the first step


@dataclass(slots=True, eq=False)
class Live:
    """A sequence on the device.

    first_launch: the number of the launch before which it had, or would have had, START_LENGTH decided positions.
    fresh: it has no KV yet. num_blocks: of its self KV.
    """

    request: SequenceRequest
    slot: int
    first_launch: int
    fresh: bool = True
    num_blocks: int = 0

    @property
    def seq_id(self) -> int:
        return self.request.seq_id

    def length(self, launches: int) -> int:
        """Decided positions after so many launches."""
        return START_LENGTH + launches - self.first_launch

    @property
    def last_launch(self) -> int:
        """The launch that decides position max_length - 1, after which there is none."""
        return self.first_launch + self.request.params.max_length - START_LENGTH - 1


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which sequences a launch has; valid until some come or go, or stop being fresh."""

    by_slot: dict[int, Live]
    num_rows: int
    oldest: int
    first_end: int
    longest_source: int
    has_fresh: bool

    @staticmethod
    def of(by_slot: dict[int, Live], num_rows: int) -> Arrangement:
        lives: Collection[Live] = by_slot.values()
        return Arrangement(
            by_slot,
            num_rows,
            oldest=min(live.first_launch for live in lives),
            first_end=min(live.last_launch for live in lives),
            longest_source=max(len(live.request.source_ids) for live in lives),
            has_fresh=any(live.fresh for live in lives),
        )

    def longest(self, launches: int) -> int:
        """Positions of the longest history, own or source."""
        return max(START_LENGTH + launches - self.oldest, self.longest_source)


@dataclass(frozen=True, slots=True)
class Flight:
    """A launch whose flags have not been read.

    over: [slots], in host memory once `arrived`. must_land: some search ended in it, so the scheduler must be told
    before it plans on.
    """

    by_slot: dict[int, Live]
    over: Tensor
    arrived: torch.cuda.Event | None
    must_land: bool

    def wait(self) -> list[Live]:
        """Who was over after this launch, those included who were so before it."""
        if self.arrived is not None:
            self.arrived.synchronize()
        over = self.over.nonzero().squeeze(1).tolist()
        return [self.by_slot[slot] for slot in over if slot in self.by_slot]


@dataclass(slots=True)
class Suspended:
    """What is kept of a preempted sequence: its search, or an end of it that nobody has been told of."""

    saved: SavedRow = field(default_factory=dict)
    finished: FinishedSequence | None = None
