"""Which input killed the engine? Group testing in halves, so that no innocent sequence ever fails. Sans-I/O.

After a death the sequences of its step are suspects. They are tried again in halves, one group in the engine at a
time and nothing else beside it, the newest first (an input that kills mostly does so in its first step). A group that
survives is cleared; one that dies is halved. Convicted is only a sequence that was alone in the engine when that
crashed or hung, and had been seen in a death before. A death that may have come from outside (SIGKILL, SIGSTOP) is no
fault of the sentence that happened to be there; but an input that makes the kernel's memory killer strike dies alone
again and again, and is convicted for that.
"""

from __future__ import annotations

import enum
import hashlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence

import msgspec

from nllbd.sched.sequence import SequenceRequest

_MAX_DEATHS = 2
_MAX_LONE_DEATHS = 5


class Cause(enum.Enum):
    """Why an engine ended."""

    FAULT = "fault"  # crashed or exited by itself
    HANG = "hang"  # a step of its did not end
    OUTSIDE = "outside"  # SIGKILL or SIGSTOP, not sent by us: an operator, or the kernel's memory killer


class Probation:
    """Suspects and their trial. Groups hold ids only; who is unfinished is the ledger's knowledge."""

    def __init__(self) -> None:
        self._groups: deque[dict[int, None]] = deque()
        self._deaths: Counter[int] = Counter()
        self._lone_deaths: Counter[int] = Counter()
        self._hung: set[int] = set()

    @property
    def group(self) -> tuple[int, ...] | None:
        """The ids that alone may be in the engine now; None = no trial, all may."""
        return tuple(self._groups[0]) if self._groups else None

    @property
    def is_for_hang(self) -> bool:
        """Whether there is a trial now, and of sequences that were in a step that hung."""
        return bool(self._groups) and not self._hung.isdisjoint(self._groups[0])

    @property
    def num_suspects(self) -> int:
        return sum(len(group) for group in self._groups)

    def record_death(self, in_step: Sequence[int], cause: Cause) -> int | None:
        """The engine died with these unfinished sequences in its step (those that joined last at the end).

        Returns the id that is convicted thereby, if any; the caller then calls `clear` for it.
        """
        self._deaths.update(in_step)
        if cause is Cause.HANG:
            self._hung.update(in_step)
        if len(in_step) == 1 and self._is_guilty(in_step[0], cause):
            return in_step[0]
        self._regroup(in_step)
        return None

    def _is_guilty(self, seq_id: int, cause: Cause) -> bool:
        self._lone_deaths[seq_id] += 1
        if cause is not Cause.OUTSIDE and self._deaths[seq_id] >= _MAX_DEATHS:
            return True
        return self._lone_deaths[seq_id] >= _MAX_LONE_DEATHS

    def _regroup(self, in_step: Sequence[int]) -> None:
        if not in_step:
            return
        for group in self._groups:
            for seq_id in in_step:
                group.pop(seq_id, None)
        middle = len(in_step) // 2
        for half in (in_step[:middle], in_step[middle:]):  # the newer half ends up in front
            self._groups.appendleft(dict.fromkeys(half))
        self._drop_empty()

    def clear(self, seq_id: int) -> bool:
        """The sequence ended, in whatever way. True if that ended the current group's trial."""
        self._deaths.pop(seq_id, None)
        self._lone_deaths.pop(seq_id, None)
        self._hung.discard(seq_id)
        if not self._groups:
            return False
        current = self._groups[0]
        for group in self._groups:
            group.pop(seq_id, None)
        self._drop_empty()
        return not self._groups or self._groups[0] is not current

    def _drop_empty(self) -> None:
        self._groups = deque(group for group in self._groups if group)


class Quarantine:
    """Inputs that are known to kill, by hash: bounded, forgotten after `ttl_s`."""

    def __init__(
        self, max_items: int = 1024, ttl_s: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_items = max_items
        self._ttl_s = ttl_s
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, request: SequenceRequest) -> None:
        digest = _digest(request)
        self._until[digest] = self._clock() + self._ttl_s
        self._until.move_to_end(digest)
        while len(self._until) > self._max_items:
            self._until.popitem(last=False)

    def holds(self, request: SequenceRequest) -> bool:
        """Whether this input (ids, target, search settings; not who asks) was convicted."""
        if not self._until:
            return False
        digest = _digest(request)
        until = self._until.get(digest)
        if until is not None and until <= self._clock():
            del self._until[digest]
            return False
        return until is not None


def _digest(request: SequenceRequest) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((request.source_ids, request.target_id, request.params))).digest()
