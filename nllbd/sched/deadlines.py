"""When which sequence expires: a heap, so that a step pays only for what expires in it.

Entries are never searched for: an entry whose sequence is gone, or has a later deadline by now, is stale and ignored.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping

from nllbd.sched.sequence import Sequence

SLACK = 1024
"""Stale entries that are always tolerated before the heap is rebuilt."""


class DeadlineHeap:
    """(deadline, seq_id) pairs. Memory is bounded by twice the live sequences plus SLACK."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, seq_id: int, deadline: float, live: Mapping[int, Sequence]) -> None:
        """Remember a deadline; one that never comes (infinite or not a number) costs nothing."""
        if not deadline < math.inf:
            return
        heapq.heappush(self._heap, (deadline, seq_id))
        if len(self._heap) > 2 * len(live) + SLACK:
            self._heap = [
                (seq.request.deadline, seq.seq_id) for seq in live.values() if seq.request.deadline < math.inf
            ]
            heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[int]:
        """Take out the seq_ids of entries whose instant has come; some may be stale."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]
