"""Waiting sequences of one priority class, in fair order. Knows nothing of blocks, lanes or classes.

Between clients: deficit round robin on work, in the variant that serves a client while its credit is positive and lets
the last sequence overdraw it (M. Shreedhar and G. Varghese, "Efficient fair queuing using deficit round robin", 1995;
the overdraft makes the next sequence known without knowing its cost, and bounds a turn to one sequence beyond the
quantum). A client whose queue empties in debt keeps the debt until rounds have paid it.
Inside a client: the request that is due first. It is due when as much work has come in as there was when it came, and
OVERTAKING times its own size besides. So a line overtakes a document that waits, and does not stop it: what came later
and goes sooner is never more than OVERTAKING times a request's own work. Of all orders, serving the smallest first has
the shortest waits; this is it, with a bound on what it may cost the largest.
Inside a request: arrival. What was preempted comes before all else of its client.

Every operation is O(log n) in the requests of a client, but for paying debts, which is O(1) per quantum of work that
was served.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from nllbd.sched.sequence import Sequence

QUANTUM = 256
"""Work a client may do in its turn, in lane tokens: two or three sentences with four beams."""

OVERTAKING = 8
"""How many times its own size a request may be overtaken by those of its client that came later."""

_STALE_ENTRIES = 64  # so many requests that have left may stay in a heap of due times


def work(seq: Sequence) -> int:
    """What serving a sequence is charged, in lane tokens: translations are about as long as their sources.

    Charged once: what was started before (preempted, or run again after a fault) is free.
    """
    return 0 if seq.started_at is not None else len(seq.source_ids) * seq.num_lanes


class _Flow:
    """The waiting sequences of a request, in order. `size`: its work as far as is known; `due` moves with it."""

    __slots__ = ("came", "due", "sequences", "size")

    def __init__(self, arrived: int, size: int) -> None:
        self.size = size
        self.due = arrived + OVERTAKING * size
        self.came = 0
        self.sequences: OrderedDict[int, Sequence] = OrderedDict()

    def push(self, seq: Sequence) -> None:
        self.sequences[seq.seq_id] = seq
        self.came += len(seq.source_ids) * seq.num_lanes
        excess = self.came - self.size
        if excess > 0:  # more than was announced
            self.size += excess
            self.due += OVERTAKING * excess


class _Due(NamedTuple):
    """An entry of the heap; stale once its flow is empty, too early when the flow's time has moved."""

    due: int
    ordinal: int
    flow: _Flow


class _Client:
    """One client's waiting requests, in the order in which they are due, and its credit.

    `resumed`: its sequences that were preempted; they wait before all others.
    """

    __slots__ = ("_arrived", "_heap", "_num_entries", "credit", "requests", "resumed")

    def __init__(self) -> None:
        self.credit = QUANTUM
        self.resumed: OrderedDict[int, Sequence] = OrderedDict()
        self.requests: dict[str, _Flow] = {}
        self._arrived = 0  # work of all requests that came
        self._heap: list[_Due] = []
        self._num_entries = 0

    @property
    def waits(self) -> bool:
        return bool(self.resumed or self.requests)

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.resumed.values()
        for flow in self.requests.values():
            yield from flow.sequences.values()

    def push(self, seq: Sequence) -> None:
        """Enter at the end of its request; a new request is put in its place among the others."""
        flow = self.requests.get(seq.request.request_id)
        if flow is None:
            size = max(seq.request.request_tokens, len(seq.source_ids)) * seq.num_lanes
            flow = self.requests[seq.request.request_id] = _Flow(self._arrived, size)
            self._num_entries += 1
            heapq.heappush(self._heap, _Due(flow.due, self._num_entries, flow))
            self._arrived += size
        flow.push(seq)

    def next(self) -> Sequence:
        """Whose turn it is. Somebody must wait."""
        if self.resumed:
            return next(iter(self.resumed.values()))
        while True:
            due, ordinal, flow = self._heap[0]
            if not flow.sequences:
                heapq.heappop(self._heap)
            elif due < flow.due:
                heapq.heapreplace(self._heap, _Due(flow.due, ordinal, flow))
            else:
                return next(iter(flow.sequences.values()))

    def take(self, seq: Sequence) -> None:
        """Remove a sequence, and its request if that was the last one. Raises KeyError."""
        if self.resumed.pop(seq.seq_id, None) is not None:
            return
        flow = self.requests[seq.request.request_id]
        del flow.sequences[seq.seq_id]
        if not flow.sequences:
            del self.requests[seq.request.request_id]
            if len(self._heap) > 2 * len(self.requests) + _STALE_ENTRIES:
                self._heap = [entry for entry in self._heap if entry.flow.sequences]
                heapq.heapify(self._heap)


class FairQueue:
    """`peek` is stable: until the sequence it names is popped or removed, only a push can change it."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        """All waiting sequences, in no promised order."""
        for client in self._clients.values():
            yield from client

    def push(self, seq: Sequence) -> None:
        """Enter at the end of its request."""
        self._client(seq).push(seq)
        self._size += 1

    def push_front(self, seq: Sequence) -> None:
        """Enter before all else of its client (it was preempted)."""
        resumed = self._client(seq).resumed
        resumed[seq.seq_id] = seq
        resumed.move_to_end(seq.seq_id, last=False)
        self._size += 1

    def remove(self, seq: Sequence) -> None:
        """Leave from anywhere. Raises KeyError if it does not wait here."""
        self._clients[seq.request.client].take(seq)
        self._forget_one()

    def peek(self) -> Sequence | None:
        """The sequence whose turn it is, or None when nothing waits."""
        while self._size:
            name, client = next(iter(self._clients.items()))
            if client.waits and client.credit > 0:
                return client.next()
            if client.credit > 0:
                del self._clients[name]
            else:
                self._end_turn(name, client)
        return None

    def pop(self) -> Sequence:
        """Take the sequence that `peek` names and charge its client. Raises IndexError when nothing waits."""
        seq = self.peek()
        if seq is None:
            raise IndexError("nothing waits")
        name = seq.request.client
        client = self._clients[name]
        client.take(seq)
        client.credit -= work(seq)
        if client.credit <= 0:
            self._end_turn(name, client)
        self._forget_one()
        return seq

    def check_integrity(self) -> None:
        """Raise AssertionError if the count is off or an empty flow was left behind."""
        if sum(1 for _ in self) != self._size:
            raise AssertionError(f"{self._size} sequences counted, {sum(1 for _ in self)} queued")
        if any(not flow.sequences for client in self._clients.values() for flow in client.requests.values()):
            raise AssertionError("an empty request was left in a fair queue")

    def _client(self, seq: Sequence) -> _Client:
        client = self._clients.get(seq.request.client)
        if client is None:
            client = self._clients[seq.request.client] = _Client()
        return client

    def _end_turn(self, name: str, client: _Client) -> None:
        client.credit += QUANTUM
        self._clients.move_to_end(name)

    def _forget_one(self) -> None:
        self._size -= 1
        if self._size == 0:
            self._clients.clear()
