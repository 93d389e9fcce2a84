"""The sequences that run: their blocks, their lanes, their lengths, and what running cost them.

Decides nothing: scheduler.py says who comes and goes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from operator import itemgetter

from nllbd.sched.kv_manager import KVManager
from nllbd.sched.sequence import Priority, Sequence, SequenceRequest, SequenceStatus


class RunningSet:
    """Running sequences by id, in the order in which they started. Holding blocks and being in here are the same."""

    def __init__(self, kv: KVManager) -> None:
        self._kv = kv
        self._sequences: dict[int, Sequence] = {}
        self._starved: list[Sequence] = []  # out of slots for the next step; may have left since
        self._decode_s = 0.0
        self._num_steps = 0
        self._peaks: list[tuple[int, int]] = []  # (step, lanes): steps rise, lanes fall; see `_peak_since`
        self.num_lanes = 0
        self.num_bulk_lanes = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences.values())

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._sequences

    def __getitem__(self, seq_id: int) -> Sequence:
        return self._sequences[seq_id]

    def by_seniority(self) -> list[Sequence]:
        """The higher class first, then the older: who gives way last comes first."""
        return sorted(self._sequences.values(), key=lambda seq: (seq.priority, seq.ordinal))

    def add(self, seq: Sequence) -> None:
        """Give a sequence its blocks and let it run."""
        self._kv.allocate(seq)
        seq.status = SequenceStatus.RUNNING
        self._sequences[seq.seq_id] = seq
        self._count_lanes(seq, 1)
        seq.decode_mark_s, seq.step_mark = self._decode_s, self._num_steps

    def remove(self, seq: Sequence) -> None:
        """Take its blocks back; the caller says what becomes of it."""
        del self._sequences[seq.seq_id]
        self._kv.free(seq)
        self._count_lanes(seq, -1)
        seq.decode_s += self._decode_s - seq.decode_mark_s
        seq.num_steps += self._num_steps - seq.step_mark
        seq.peak_lanes = max(seq.peak_lanes, self._peak_since(seq.step_mark))

    def replace_request(self, seq: Sequence, request: SequenceRequest) -> None:
        """Give a running sequence another class."""
        self._count_lanes(seq, -1)
        seq.request = request
        self._count_lanes(seq, 1)

    def record_step(self, decode_s: float) -> None:
        """One more step was done. Each sequence's share follows from marks, so that this costs nothing a sequence."""
        self._num_steps += 1
        self._decode_s += decode_s
        while self._peaks and self._peaks[-1][1] <= self.num_lanes:
            self._peaks.pop()  # no later than this step and no higher: the peak of nothing any more
        self._peaks.append((self._num_steps, self.num_lanes))

    def advance(self) -> None:
        """All that run became one position longer."""
        for seq in self._sequences.values():
            seq.length += 1
            if seq.length > seq.covered:
                self._starved.append(seq)

    def missing_blocks(self) -> int:
        """Blocks without which the next step cannot be."""
        return sum(self._kv.growth(seq) for seq in self._starved if seq.status is SequenceStatus.RUNNING)

    def grow(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Hand the missing blocks out: (seq_id, its further self blocks)."""
        starved = [seq for seq in self._starved if seq.status is SequenceStatus.RUNNING]
        self._starved = []
        return tuple((seq.seq_id, self._kv.grow(seq)) for seq in starved)

    def check_integrity(self) -> None:
        """Raise AssertionError when statuses, lanes, blocks or slots are off."""
        running = list(self)
        self._kv.check_integrity(running)
        if any(seq.status is not SequenceStatus.RUNNING for seq in running):
            raise AssertionError("a running sequence is marked otherwise")
        starved = {seq.seq_id for seq in self._starved}
        if any(seq.length > seq.covered and seq.seq_id not in starved for seq in running):
            raise AssertionError("a running sequence lacks slots and nobody knows")
        bulk = sum(seq.num_lanes for seq in running if seq.priority is Priority.BULK)
        if (self.num_lanes, self.num_bulk_lanes) != (sum(seq.num_lanes for seq in running), bulk):
            raise AssertionError("the lanes are miscounted")

    def _peak_since(self, mark: int) -> int:
        """The most lanes of any step after `mark`: the first of the peaks that is later, for they only fall."""
        index = bisect.bisect_right(self._peaks, mark, key=itemgetter(0))
        return self._peaks[index][1] if index < len(self._peaks) else 0

    def _count_lanes(self, seq: Sequence, sign: int) -> None:
        self.num_lanes += sign * seq.num_lanes
        if seq.priority is Priority.BULK:
            self.num_bulk_lanes += sign * seq.num_lanes
