"""Waiting sequences of one priority class, in fair order. Knows nothing of blocks, lanes or classes.

Between clients: deficit round robin on work, in the variant that serves a client while its credit is positive and lets
the last sequence overdraw it (M. Shreedhar and G. Varghese, "Efficient fair queuing using deficit round robin", 1995;
the overdraft makes the next sequence known without knowing its cost, and bounds a turn to one sequence beyond the
quantum). A client whose queue empties in debt keeps the debt until rounds have paid it.
Inside a client: some sentences in turn from each of its requests, so that a document never starves a one-line request
and yet, coming in whole batches, is not kept waiting for the last of them by every line that came later.
Inside a request: arrival; what was preempted comes first.

Every operation is O(1), but for paying debts, which is O(1) per quantum of work that was served.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from nllbd.sched.sequence import Sequence

QUANTUM = 256
"""Work a client may do in its turn, in lane tokens: two or three sentences with four beams."""

REQUEST_TURN = 512
"""Work of one request before the client's next one has its turn, in lane tokens: some ten sentences with four beams."""


def work(seq: Sequence) -> int:
    """What serving a sequence is charged, in lane tokens: translations are about as long as their sources.

    Charged once: what was started before (preempted, or run again after a fault) is free.
    """
    return 0 if seq.started_at is not None else len(seq.source_ids) * seq.num_lanes


class _Client:
    """One client's waiting requests, each an ordered map of sequences, and its credit."""

    __slots__ = ("credit", "requests", "turn")

    def __init__(self) -> None:
        self.credit = QUANTUM
        self.turn = REQUEST_TURN  # of its first request
        self.requests: OrderedDict[str, OrderedDict[int, Sequence]] = OrderedDict()


class FairQueue:
    """`peek` is stable: until the sequence it names is popped or removed, only a `push_front` can change it."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        """All waiting sequences, in no promised order."""
        for client in self._clients.values():
            for flow in client.requests.values():
                yield from flow.values()

    def push(self, seq: Sequence) -> None:
        """Enter at the end of its request."""
        self._flow(seq)[seq.seq_id] = seq
        self._size += 1

    def push_front(self, seq: Sequence) -> None:
        """Enter before all else of its client (it was preempted)."""
        flow = self._flow(seq)
        flow[seq.seq_id] = seq
        flow.move_to_end(seq.seq_id, last=False)
        self._clients[seq.request.client].requests.move_to_end(seq.request.request_id, last=False)
        self._size += 1

    def remove(self, seq: Sequence) -> None:
        """Leave from anywhere. Raises KeyError if it does not wait here."""
        client = self._clients[seq.request.client]
        flow = client.requests[seq.request.request_id]
        del flow[seq.seq_id]
        if not flow:
            del client.requests[seq.request.request_id]
        self._forget_one()

    def peek(self) -> Sequence | None:
        """The sequence whose turn it is, or None when nothing waits."""
        while self._size:
            name, client = next(iter(self._clients.items()))
            if client.requests and client.credit > 0:
                flow = next(iter(client.requests.values()))
                return next(iter(flow.values()))
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
        name, request_id = seq.request.client, seq.request.request_id
        client = self._clients[name]
        flow = client.requests[request_id]
        del flow[seq.seq_id]
        client.credit -= work(seq)
        client.turn -= work(seq)
        if not flow:
            del client.requests[request_id]
        elif client.turn <= 0:
            client.requests.move_to_end(request_id)
        if not flow or client.turn <= 0:
            client.turn = REQUEST_TURN
        if client.credit <= 0:
            self._end_turn(name, client)
        self._forget_one()
        return seq

    def check_integrity(self) -> None:
        """Raise AssertionError if the count is off or an empty flow was left behind."""
        if sum(1 for _ in self) != self._size:
            raise AssertionError(f"{self._size} sequences counted, {sum(1 for _ in self)} queued")
        if any(not flow for client in self._clients.values() for flow in client.requests.values()):
            raise AssertionError("an empty request was left in a fair queue")

    def _flow(self, seq: Sequence) -> OrderedDict[int, Sequence]:
        client = self._clients.get(seq.request.client)
        if client is None:
            client = self._clients[seq.request.client] = _Client()
        flow = client.requests.get(seq.request.request_id)
        if flow is None:
            flow = client.requests[seq.request.request_id] = OrderedDict()
        return flow

    def _end_turn(self, name: str, client: _Client) -> None:
        client.credit += QUANTUM
        self._clients.move_to_end(name)

    def _forget_one(self) -> None:
        self._size -= 1
        if self._size == 0:
            self._clients.clear()
