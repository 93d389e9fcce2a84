"""Who is next among all that wait: priority classes over fair queues, and the bulk class's guaranteed share.

Knows lanes only as numbers that the scheduler tells it; nothing of blocks or budgets.
"""

from __future__ import annotations

from collections.abc import Iterator

from nllbd.sched.fair_queue import FairQueue
from nllbd.sched.sequence import Priority, Sequence

BULK_SHARE_DIVISOR = 10
"""Bulk gets at least one in so many lane-steps while it waits."""

MEMORY_STEPS = 1024
"""How many full steps of debt or credit between the classes are remembered; about the longest a sequence can run."""


class BulkShare:
    """The ledger between the classes, in lane-steps: what bulk is owed of the steps it waited in."""

    def __init__(self, max_num_lanes: int) -> None:
        self._limit = MEMORY_STEPS * max_num_lanes
        self._owed = 0

    def record(self, num_lanes: int, num_bulk_lanes: int, *, bulk_waits: bool, interactive_present: bool) -> None:
        """Account for one step. Without interactive work there is nothing to share and nothing to remember."""
        if not interactive_present:
            self._owed = 0
        elif bulk_waits:
            owed = self._owed + num_lanes - BULK_SHARE_DIVISOR * num_bulk_lanes
            self._owed = max(-self._limit, min(self._limit, owed))

    def prefers_bulk(self, num_lanes: int, num_bulk_lanes: int) -> bool:
        """Whether bulk goes first now: it is owed, and what runs now does not pay it back already."""
        return self._owed > 0 and BULK_SHARE_DIVISOR * num_bulk_lanes <= num_lanes


class WaitingQueue:
    """All sequences that wait for a place in the batch, but those on probation."""

    def __init__(self, max_num_lanes: int) -> None:
        self._queues = {priority: FairQueue() for priority in Priority}
        self._share = BulkShare(max_num_lanes)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Sequence]:
        """All of them, in no promised order."""
        for queue in self._queues.values():
            yield from queue

    def push(self, seq: Sequence) -> None:
        self._queues[seq.priority].push(seq)

    def push_front(self, seq: Sequence) -> None:
        """For what was running already: before all else of its client."""
        self._queues[seq.priority].push_front(seq)

    def remove(self, seq: Sequence) -> None:
        self._queues[seq.priority].remove(seq)

    def peek(self, num_lanes: int, num_bulk_lanes: int) -> Sequence | None:
        """Whose turn it is, given the lanes that run now (all, and those of bulk)."""
        interactive = self._queues[Priority.INTERACTIVE].peek()
        bulk = self._queues[Priority.BULK].peek()
        if interactive is None or bulk is None:
            return interactive or bulk
        return bulk if self._share.prefers_bulk(num_lanes, num_bulk_lanes) else interactive

    def pop(self, seq: Sequence) -> None:
        """Take the sequence that `peek` named."""
        popped = self._queues[seq.priority].pop()
        if popped is not seq:
            raise ValueError(f"sequence {seq.seq_id} was not the next one")

    def record_step(self, num_lanes: int, num_bulk_lanes: int) -> None:
        """Tell the ledger of one step and the lanes that run in it."""
        waits = len(self._queues[Priority.INTERACTIVE]) > 0
        self._share.record(
            num_lanes,
            num_bulk_lanes,
            bulk_waits=len(self._queues[Priority.BULK]) > 0,
            interactive_present=waits or num_lanes > num_bulk_lanes,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError when a queue miscounts or holds another class's sequence."""
        for priority, queue in self._queues.items():
            queue.check_integrity()
            if any(seq.priority is not priority for seq in queue):
                raise AssertionError(f"a sequence of another class waits in {priority.name}")
