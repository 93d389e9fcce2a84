"""Which sequence makes a step raise: found by halving, without losing the others. Starts and stops nothing itself.

A step that raised names no culprit, and the runner has lost the state of all that ran in it. Those are the suspects:
they run again from scratch (the search is deterministic, so the result is the same), half of them at a time and nobody
else beside them. A group that raises is halved again; a group of one that raises is the culprit. A suspect is innocent
as soon as it is longer than it was in the step that raised.

When every suspect proves innocent, no input is to blame but the company (memory): then the batch gets fewer lanes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as Seq

from nllbd.sched.sequence import Sequence, SequenceStatus

CLEAN_STEPS = 1024
"""Steps without a fault after which a lowered lane limit is doubled. No fewer than a sequence can last (positions end
at 1024), so that everything that starts under the lower limit can finish before the next risk is taken."""


class LaneLimit:
    """How many lanes may run together; below the configured maximum for a while after faults nobody is to blame for."""

    def __init__(self, max_num_lanes: int) -> None:
        self._max = max_num_lanes
        self._clean_steps = 0
        self.value = max_num_lanes

    def lower(self, num_lanes: int) -> None:
        """A step of so many lanes was too much: allow half of them."""
        self.value = max(1, min(self.value, num_lanes // 2))
        self._clean_steps = 0

    def record_clean_step(self) -> None:
        """Count towards the recovery."""
        if self.value == self._max:
            return
        self._clean_steps += 1
        if self._clean_steps >= CLEAN_STEPS:
            self.value = min(self._max, 2 * self.value)
            self._clean_steps = 0


class Probation:
    """The suspects, in groups. One group is open at a time; only its members may start while probation is active."""

    def __init__(self) -> None:
        self._groups: list[OrderedDict[int, Sequence]] = []
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()  # of the open group
        self._testing: dict[int, Sequence] = {}  # of the open group: running, not yet proven innocent
        self._lanes_at_fault = 0
        self._culprit_found = False

    @property
    def is_active(self) -> bool:
        return self._lanes_at_fault > 0

    @property
    def is_group_open(self) -> bool:
        return bool(self._waiting or self._testing)

    def waiting(self) -> Iterator[Sequence]:
        """All members that wait, of the open group and the later ones."""
        yield from self._waiting.values()
        for group in self._groups:
            yield from group.values()

    def holds(self, seq: Sequence) -> bool:
        """Whether a waiting sequence waits here."""
        return seq.seq_id in self._waiting or any(seq.seq_id in group for group in self._groups)

    def accuse(self, suspects: Seq[Sequence], num_lanes: int) -> None:
        """A step with exactly these running, two or more, on so many lanes, raised. They wait here from now on."""
        self._close_group()
        self._lanes_at_fault = self._lanes_at_fault or num_lanes
        middle = len(suspects) // 2
        for half in (suspects[middle:], suspects[:middle]):
            self._groups.append(OrderedDict((seq.seq_id, seq) for seq in half))

    def convict(self, culprit: Sequence) -> None:
        """A step with this one alone running raised: it is to blame, and no member any more."""
        self._testing.pop(culprit.seq_id, None)
        self._close_group()
        self._culprit_found = self.is_active

    def _close_group(self) -> None:
        if self._waiting:
            self._groups.append(self._waiting)
        self._waiting, self._testing = OrderedDict(), {}

    def open_next_group(self) -> bool:
        """Call when no group is open. False when there is none left."""
        while self._groups and not self._waiting:
            self._waiting = self._groups.pop()
        return bool(self._waiting)

    def close(self) -> int:
        """End probation. Returns the lanes of the step that first raised if no culprit was found, else 0."""
        unexplained = 0 if self._culprit_found else self._lanes_at_fault
        self._lanes_at_fault, self._culprit_found = 0, False
        return unexplained

    def peek(self) -> Sequence | None:
        """The next member of the open group to start."""
        return next(iter(self._waiting.values()), None)

    def start(self, seq: Sequence) -> None:
        """The sequence that `peek` named runs now."""
        del self._waiting[seq.seq_id]
        self._testing[seq.seq_id] = seq

    def take_back(self, seq: Sequence) -> bool:
        """A running sequence was preempted: True if it is a member still to be tested, and waits here again."""
        if self._testing.pop(seq.seq_id, None) is None:
            return False
        self._waiting[seq.seq_id] = seq
        self._waiting.move_to_end(seq.seq_id, last=False)
        return True

    def discard(self, seq: Sequence) -> bool:
        """Forget a sequence that ended. True if it waited here."""
        self._testing.pop(seq.seq_id, None)
        if self._waiting.pop(seq.seq_id, None) is not None:
            return True
        return any(group.pop(seq.seq_id, None) is not None for group in self._groups)

    def clear_innocent(self) -> None:
        """Call after each step: who got past the point of the fault is no suspect any more and runs on."""
        for seq in [seq for seq in self._testing.values() if seq.length > seq.suspect_length]:
            del self._testing[seq.seq_id]

    def check_integrity(self) -> None:
        """Raise AssertionError when members are not what their place says."""
        members = list(self.waiting())
        if any(seq.status is not SequenceStatus.WAITING for seq in members):
            raise AssertionError("a sequence waits on probation without the status WAITING")
        if any(seq.status is not SequenceStatus.RUNNING for seq in self._testing.values()):
            raise AssertionError("a sequence is tested on probation without the status RUNNING")
        if (members or self._testing) and not self.is_active:
            raise AssertionError("probation has members but is not active")
