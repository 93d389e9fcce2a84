"""The book of unfinished sequences on the event loop's side: each gets exactly one outcome, whatever happens below.

Keeps request, future and whether the engine has it; expires deadlines by itself, so a dead or frozen engine delays
nobody beyond his own. Knows no process, no thread, no socket. One event loop; not thread-safe.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from nllbd.bridge.codec import Update
from nllbd.sched.sequence import FinishReason, Priority, SequenceOutcome, SequenceRequest

_OVERHEAD_TOKENS = 40  # what the other fields of a request weigh on the wire, in tokens of some 4 bytes
_STALE_DEADLINES = 1000  # how many finished ones the heap may carry along before it is rebuilt

OutcomeFuture = asyncio.Future[SequenceOutcome]


@dataclass(slots=True, eq=False)
class _Entry:
    request: SequenceRequest
    future: OutcomeFuture
    sent: bool = False


class Ledger:
    """Unfinished sequences, those not yet sent in order of class, then arrival.

    Args:
        max_segments, max_tokens: what may be unfinished at once; a submission beyond is refused whole.
        on_cancelled: called with the id when a caller cancels a future; its sequence is to be aborted.
        on_closed: called with the id of each sequence that gets its outcome here.
    """

    def __init__(
        self,
        max_segments: int,
        max_tokens: int,
        on_cancelled: Callable[[int], None],
        on_closed: Callable[[int], None] = lambda seq_id: None,
    ) -> None:
        self.max_segments = max_segments
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self._on_cancelled = on_cancelled
        self._on_closed = on_closed
        self._entries: dict[int, _Entry] = {}
        self._unsent: dict[Priority, dict[int, None]] = {priority: {} for priority in Priority}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._entries

    def request(self, seq_id: int) -> SequenceRequest:
        """The unfinished request with this id, as it is after updates. KeyError if there is none."""
        return self._entries[seq_id].request

    def requests(self) -> Iterator[SequenceRequest]:
        """All unfinished requests in order of arrival (a copy: resolving while iterating is fine)."""
        return iter([entry.request for entry in self._entries.values()])

    @property
    def next_deadline(self) -> float:
        """When `expire` is to be called next; it may turn out to be nobody's any more. Infinite if never."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def tokens_of(self, seq_ids: Iterable[int]) -> int:
        """Source tokens of those of `seq_ids` that are unfinished. Any thread may ask: sequences may end meanwhile."""
        entries = map(self._entries.get, seq_ids)
        return sum(len(entry.request.source_ids) for entry in entries if entry is not None)

    def add(self, requests: Iterable[SequenceRequest]) -> list[OutcomeFuture]:
        """Take in sequences, all or none; those refused are OVERLOADED at once."""
        batch = list(requests)
        loop = asyncio.get_running_loop()
        tokens = sum(len(request.source_ids) for request in batch)
        fits = len(self) + len(batch) <= self.max_segments and self.num_tokens + tokens <= self.max_tokens
        futures: list[OutcomeFuture] = []
        for request in batch:
            future = loop.create_future()
            futures.append(future)
            if fits:
                self._insert(_Entry(request, future))
            else:
                future.set_result(SequenceOutcome(request.seq_id, FinishReason.OVERLOADED, message="the queue is full"))
        return futures

    def _insert(self, entry: _Entry) -> None:
        seq_id = entry.request.seq_id
        if seq_id in self._entries:
            raise ValueError(f"sequence {seq_id} is already there; take ids from next_seq_id()")
        self._entries[seq_id] = entry
        self._unsent[entry.request.priority][seq_id] = None
        self.num_tokens += len(entry.request.source_ids)
        self._file_deadline(seq_id, entry.request.deadline)
        entry.future.add_done_callback(lambda future: self._on_cancelled(seq_id) if future.cancelled() else None)

    def resolve(self, outcome: SequenceOutcome) -> bool:
        """Close a sequence; False if it is closed already (a late outcome after an abort)."""
        entry = self._entries.pop(outcome.seq_id, None)
        if entry is None:
            return False
        self.num_tokens -= len(entry.request.source_ids)
        self._unsent[entry.request.priority].pop(outcome.seq_id, None)
        if not entry.future.done():
            entry.future.set_result(outcome)
        self._on_closed(outcome.seq_id)
        return True

    def abort(self, seq_ids: Iterable[int]) -> list[int]:
        """Close as ABORTED; returns the ids that the engine has and must be told of."""
        return self._close(seq_ids, FinishReason.ABORTED)

    def expire(self, now: float) -> list[int]:
        """Close as DEADLINE what is due; returns the ids that the engine has and must be told of."""
        due: list[int] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            seq_id = heapq.heappop(self._deadlines)[1]
            entry = self._entries.get(seq_id)
            if entry is None:
                continue
            if entry.request.deadline <= now:
                due.append(seq_id)
            else:  # moved by an update since it was filed
                self._file_deadline(seq_id, entry.request.deadline)
        return self._close(due, FinishReason.DEADLINE)

    def _file_deadline(self, seq_id: int, deadline: float) -> None:
        if deadline == math.inf:
            return
        heapq.heappush(self._deadlines, (deadline, seq_id))
        if len(self._deadlines) > 2 * len(self._entries) + _STALE_DEADLINES:
            self._deadlines = [(e.request.deadline, i) for i, e in self._entries.items()]
            heapq.heapify(self._deadlines)

    def _close(self, seq_ids: Iterable[int], reason: FinishReason) -> list[int]:
        told = []
        for seq_id in seq_ids:
            entry = self._entries.get(seq_id)
            if self.resolve(SequenceOutcome(seq_id, reason)) and entry is not None and entry.sent:
                told.append(seq_id)
        return told

    def close_all(self, reason: FinishReason, message: str = "") -> None:
        """Close everything that is unfinished."""
        for seq_id in list(self._entries):
            self.resolve(SequenceOutcome(seq_id, reason, message=message))
        self._deadlines.clear()

    def update(self, seq_id: int, priority: Priority, deadline: float) -> Update | None:
        """New class and deadline; returns what the engine must be told, if it has the sequence."""
        entry = self._entries.get(seq_id)
        if entry is None:
            return None
        if not entry.sent and priority is not entry.request.priority:
            del self._unsent[entry.request.priority][seq_id]
            self._unsent[priority][seq_id] = None
        if deadline < entry.request.deadline:
            self._file_deadline(seq_id, deadline)
        entry.request = replace(entry.request, priority=priority, deadline=deadline)
        return Update(seq_id, priority, deadline) if entry.sent else None

    def take(self, max_tokens: float, only: Iterable[int] | None = None) -> tuple[SequenceRequest, ...]:
        """Mark as sent and return the next unsent sequences, at least one if there is any, up to `max_tokens`.

        `only`: consider no others than these, in their order.
        """
        taken: list[SequenceRequest] = []
        for seq_id in self._unsent_ids() if only is None else only:
            entry = self._entries.get(seq_id)
            if entry is None or entry.sent:
                continue
            max_tokens -= len(entry.request.source_ids) + _OVERHEAD_TOKENS
            if taken and max_tokens < 0:
                break
            taken.append(entry.request)
        for request in taken:
            self._entries[request.seq_id].sent = True
            del self._unsent[request.priority][request.seq_id]
        return tuple(taken)

    def _unsent_ids(self) -> Iterator[int]:
        for ids in self._unsent.values():
            yield from ids

    def sent_ids(self) -> list[int]:
        """What the engine has, in order of arrival."""
        return [seq_id for seq_id, entry in self._entries.items() if entry.sent]

    def unsend_all(self) -> None:
        """The engine is gone: everything unfinished is to be sent again, in the old order."""
        self._unsent = {priority: {} for priority in Priority}
        for seq_id, entry in self._entries.items():
            entry.sent = False
            self._unsent[entry.request.priority][seq_id] = None
