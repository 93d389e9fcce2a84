"""Decides what runs in each step: who starts, who grows, who must give way, who has expired.

Standard library only: it sees ids, lengths and clocks, never a tensor, and calls nobody back. Usage, on one thread:
`plan = schedule()`, run it, then `apply(result)` or, if the run raised, `fail_step(message)`; `add`, `update` and
`abort` between these and the next `schedule()`. Every sequence that was added gets exactly one outcome, out of `apply`
or `fail_step`.

Why it always ends
    A sequence that can never fit alone is refused. When nothing runs, the next one starts whatever the budgets say.
    Out of blocks, the youngest of the lowest class gives way and keeps what it has decided, and the last one running
    never does. So every step makes at least one sequence longer, and none shorter.
What a step costs
    A few operations for each running sequence (its length, and whether its blocks still suffice); nothing for those
    that wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from nllbd.sched.deadlines import DeadlineHeap
from nllbd.sched.kv_manager import START_LENGTH, KVManager
from nllbd.sched.plan import StartedSequence, StepPlan, StepResult
from nllbd.sched.probation import LaneLimit, Probation
from nllbd.sched.refusal import AdmissionLimits, refuse
from nllbd.sched.running import RunningSet
from nllbd.sched.sequence import (
    FinishReason,
    Hypothesis,
    Priority,
    Sequence,
    SequenceOutcome,
    SequenceRequest,
    SequenceStatus,
)
from nllbd.sched.waiting import WaitingQueue

WATERMARK_STEPS = 8


class Scheduler:
    """See the module's docstring.

    Args:
        num_blocks, block_size: the KV pool, in blocks, and slots a block.
        max_num_lanes: lanes in a step.
        max_encode_tokens: tokens encoded or prefilled in a step; exceeded only by a sequence that starts alone in it.
        max_num_beams: beams of a sequence; more are refused.
        max_waiting_segments, max_waiting_tokens: what may wait, in sequences and source tokens.
        clock: seconds, the one that deadlines refer to.
        watermark_steps: a sequence starts only if the batch could then grow so many steps; starting what must soon
            give way wastes work. 0 invites preemption: for tests.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int = 16,
        max_num_lanes: int = 64,
        max_encode_tokens: int = 2048,
        max_num_beams: int = 8,
        max_waiting_segments: int = 20_000,
        max_waiting_tokens: int = 2_000_000,
        clock: Callable[[], float] = time.monotonic,
        watermark_steps: int = WATERMARK_STEPS,
    ) -> None:
        self.kv = KVManager(num_blocks, block_size)
        self.waiting_tokens = 0
        self.num_preemptions = 0
        self._limits = AdmissionLimits(max_num_lanes, max_num_beams, max_waiting_segments, max_waiting_tokens)
        self._max_encode_tokens = max_encode_tokens
        self._watermark_steps = watermark_steps
        self._clock = clock
        self._lane_limit = LaneLimit(max_num_lanes)
        self._sequences: dict[int, Sequence] = {}  # all that live: WAITING or RUNNING
        self._waiting = WaitingQueue(max_num_lanes)
        self._probation = Probation()
        self._running = RunningSet(self.kv)
        self._parked: dict[int, Sequence] = {}  # those that wait with their search state kept by the runner
        self._deadlines = DeadlineHeap()
        self._outcomes: list[SequenceOutcome] = []
        self._released: list[int] = []  # what the next plan tells the runner
        self._preempted: list[int] = []
        self._plan: StepPlan | None = None
        self._num_added = 0
        self._num_plans = 0

    # What the engine asks and tells

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything: sequences, outcomes to hand out, or something to tell the runner."""
        return bool(self._sequences or self._outcomes or self._released)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._sequences) - len(self._running)

    @property
    def num_lanes(self) -> int:
        return self._running.num_lanes

    @property
    def lane_limit(self) -> int:
        """How many lanes a step may have now: fewer than the setting after a lack of memory."""
        return self._lane_limit.value

    @property
    def num_parked(self) -> int:
        """Preempted sequences whose search state the runner keeps."""
        return len(self._parked)

    def __iter__(self) -> Iterator[Sequence]:
        """All that live, waiting or running."""
        return iter(self._sequences.values())

    def add(self, request: SequenceRequest) -> None:
        """Take a sequence in; what cannot be served is refused by its outcome.

        Raises ValueError when a live sequence has the same id: ids are the caller's to keep apart.
        """
        if request.seq_id in self._sequences:
            raise ValueError(f"sequence {request.seq_id} was added twice")
        refusal = refuse(request, self._limits, self.kv, self.num_waiting, self.waiting_tokens)
        if refusal is not None:
            self._outcomes.append(refusal)
            return
        self._num_added += 1
        seq = Sequence(request, arrival=self._clock(), ordinal=self._num_added)
        self._sequences[seq.seq_id] = seq
        self._waiting.push(seq)
        self.waiting_tokens += len(seq.source_ids)
        self._deadlines.push(seq.seq_id, request.deadline, self._sequences)

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        """Raise a sequence to a higher class or a later deadline; never lowers either. Unknown ids have ended."""
        seq = self._sequences.get(seq_id)
        if seq is None:
            return
        old = seq.request
        request = replace(old, priority=min(old.priority, priority), deadline=max(old.deadline, deadline))
        if request.priority is not old.priority:
            self._change_class(seq, request)
        seq.request = request
        if request.deadline != old.deadline:
            self._deadlines.push(seq_id, request.deadline, self._sequences)

    def abort(self, seq_ids: Iterable[int]) -> None:
        """End sequences now; their blocks are free for the next plan. Unknown ids have ended already."""
        for seq_id in seq_ids:
            seq = self._sequences.get(seq_id)
            if seq is not None:
                self._drop(seq, FinishReason.ABORTED)

    def schedule(self) -> StepPlan:
        """The next step. Raises RuntimeError while the last plan is neither applied nor failed."""
        if self._plan is not None:
            raise RuntimeError(f"step {self._plan.step} has no result yet")
        self._expire(self._clock())
        self._turn_probation()
        shortage = self._make_room()
        grown = self._running.grow()
        started, num_encode_tokens = ((), 0) if shortage else self._admit()
        self._waiting.record_step(self._running.num_lanes, self._running.num_bulk_lanes)
        self._num_plans += 1
        self._plan = StepPlan(
            step=self._num_plans,
            released=tuple(self._released),
            preempted=tuple(self._preempted),
            started=started,
            grown=grown,
            num_sequences=len(self._running),
            num_lanes=self._running.num_lanes,
            num_encode_tokens=num_encode_tokens,
        )
        self._released, self._preempted = [], []
        return self._plan

    def apply(self, result: StepResult) -> list[SequenceOutcome]:
        """Take the plan's result in; returns all outcomes since the last call, whatever their reason.

        Raises ValueError, having changed nothing, when the result does not fit the plan.
        """
        plan = self._check_result(result)
        self._plan = None
        if not plan.is_empty:
            self._running.record_step(result.decode_s)
            self._lane_limit.record_clean_step()
        for started in plan.started:
            self._running[started.request.seq_id].encode_s += result.encode_s
        for finished in result.finished:
            reason = FinishReason.LENGTH if finished.truncated else FinishReason.STOP
            self._finish_running(finished.seq_id, reason, hypotheses=finished.hypotheses)
        for seq_id, message in result.failed:
            self._finish_running(seq_id, FinishReason.FAILED, message)
        self._running.advance()
        if self._probation.is_active:
            self._probation.clear_innocent()
        return self._take_outcomes()

    def fail_step(self, message: str) -> list[SequenceOutcome]:
        """The plan's step raised and the runner was reset. Fails a sequence that was alone, else puts all on probation.

        Returns outcomes as `apply` does.
        """
        if self._plan is None:
            raise RuntimeError("no step is under way")
        self._plan = None
        suspects, num_lanes = list(self._running), self._running.num_lanes
        for seq in suspects:
            seq.suspect_length = seq.length
            self._running.remove(seq)
        for seq in (*suspects, *self._parked.values()):
            seq.length = START_LENGTH  # the runner lost their search state; it will find the same again
        self._parked.clear()
        if len(suspects) == 1:
            self._probation.convict(suspects[0])
            self._finish(suspects[0], FinishReason.FAILED, message)
        elif suspects:
            for seq in suspects:
                self._wait(seq)
            self._probation.accuse(suspects, num_lanes)
        return self._take_outcomes()

    # The parts of a plan

    def _expire(self, now: float) -> None:
        for seq_id in self._deadlines.due(now):
            seq = self._sequences.get(seq_id)
            if seq is not None and seq.request.deadline <= now:
                self._drop(seq, FinishReason.DEADLINE)

    def _turn_probation(self) -> None:
        """When the open group is proven innocent, the next one gets the runner for itself."""
        probation = self._probation
        if not probation.is_active or probation.is_group_open:
            return
        if probation.open_next_group():
            for seq in reversed(self._running.by_seniority()):
                self._preempt(seq)
            return
        unexplained_lanes = probation.close()
        if unexplained_lanes:
            self._lane_limit.lower(unexplained_lanes)

    def _make_room(self) -> bool:
        """Preempt until what runs can grow, the lowest class first, then the youngest. Whether that was necessary."""
        if self._running.missing_blocks() <= self.kv.pool.num_free:
            return False
        victims = self._running.by_seniority()
        while self._running.missing_blocks() > self.kv.pool.num_free and len(victims) > 1:
            self._preempt(victims.pop())
        return True

    def _admit(self) -> tuple[tuple[StartedSequence, ...], int]:
        """Start whoever's turn it is until one does not fit; it is not overtaken, or it might wait for ever."""
        started: list[StartedSequence] = []
        num_encode_tokens = 0
        while (seq := self._next()) is not None and self._fits(seq, num_encode_tokens):
            num_encode_tokens += self._encode_tokens(seq)
            started.append(self._start(seq))
        return tuple(started), num_encode_tokens

    def _next(self) -> Sequence | None:
        if self._probation.is_active:
            return self._probation.peek()
        return self._waiting.peek(self._running.num_lanes, self._running.num_bulk_lanes)

    def _fits(self, seq: Sequence, num_encode_tokens: int) -> bool:
        """Whether a sequence may start beside what runs. Alone it always may: the pool is empty then."""
        if not self._running:
            return True
        num_lanes = self._running.num_lanes + seq.num_lanes
        if num_lanes > self._lane_limit.value:
            return False
        if num_encode_tokens and num_encode_tokens + self._encode_tokens(seq) > self._max_encode_tokens:
            return False
        watermark = self.kv.blocks_for(num_lanes * self._watermark_steps)
        return self.kv.need(seq.request, seq.length) + watermark <= self.kv.pool.num_free

    def _encode_tokens(self, seq: Sequence) -> int:
        """What starting a sequence costs the encode budget: its source, and what a resumed one's lanes prefill."""
        prefill = seq.length * seq.num_lanes if seq.seq_id in self._parked else 0
        return len(seq.source_ids) + prefill

    # Moves from one container to another

    def _start(self, seq: Sequence) -> StartedSequence:
        if self._probation.is_active:
            self._probation.start(seq)
        else:
            self._waiting.pop(seq)
        self.waiting_tokens -= len(seq.source_ids)
        self._running.add(seq)
        if seq.started_at is None:
            seq.started_at = self._clock()
        resumed = self._parked.pop(seq.seq_id, None) is not None
        return StartedSequence(seq.request, tuple(seq.cross_blocks), tuple(seq.self_blocks), resumed)

    def _preempt(self, seq: Sequence) -> None:
        self._running.remove(seq)
        self._wait(seq)
        seq.num_preemptions += 1
        self.num_preemptions += 1
        self._parked[seq.seq_id] = seq
        self._preempted.append(seq.seq_id)
        if not self._probation.take_back(seq):
            self._waiting.push_front(seq)

    def _wait(self, seq: Sequence) -> None:
        """From running to waiting; the caller says where."""
        seq.status = SequenceStatus.WAITING
        self.waiting_tokens += len(seq.source_ids)

    def _drop(self, seq: Sequence, reason: FinishReason) -> None:
        """End a sequence that the runner did not end, and see to it that the runner forgets it."""
        if seq.status is SequenceStatus.RUNNING:
            self._running.remove(seq)
            self._probation.discard(seq)
            self._released.append(seq.seq_id)
        else:
            self.waiting_tokens -= len(seq.source_ids)
            if not self._probation.discard(seq):
                self._waiting.remove(seq)
            if self._parked.pop(seq.seq_id, None) is not None:
                self._released.append(seq.seq_id)
        self._finish(seq, reason)

    def _finish_running(
        self, seq_id: int, reason: FinishReason, message: str = "", hypotheses: tuple[Hypothesis, ...] = ()
    ) -> None:
        """End a sequence that the runner ended, and has forgotten."""
        seq = self._running[seq_id]
        self._running.remove(seq)
        self._probation.discard(seq)
        self._finish(seq, reason, message, hypotheses)

    def _finish(
        self, seq: Sequence, reason: FinishReason, message: str = "", hypotheses: tuple[Hypothesis, ...] = ()
    ) -> None:
        """Write the one outcome of a sequence that is in no other container any more."""
        del self._sequences[seq.seq_id]
        seq.status = SequenceStatus.FINISHED
        queued_until = self._clock() if seq.started_at is None else seq.started_at
        self._outcomes.append(
            SequenceOutcome(
                seq_id=seq.seq_id,
                reason=reason,
                hypotheses=hypotheses,
                message=message,
                queue_s=queued_until - seq.arrival,
                encode_s=seq.encode_s,
                decode_s=seq.decode_s,
                num_steps=seq.num_steps,
                num_preemptions=seq.num_preemptions,
                peak_lanes=seq.peak_lanes,
            )
        )

    def _change_class(self, seq: Sequence, request: SequenceRequest) -> None:
        """Give a sequence its new request, with another class, in whatever container it is."""
        if seq.status is SequenceStatus.RUNNING:
            self._running.replace_request(seq, request)
        elif self._probation.holds(seq):
            seq.request = request
        else:
            self._waiting.remove(seq)
            seq.request = request
            if seq.started_at is None:
                self._waiting.push(seq)
            else:
                self._waiting.push_front(seq)

    def _take_outcomes(self) -> list[SequenceOutcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # Checks

    def _check_result(self, result: StepResult) -> StepPlan:
        plan = self._plan
        if plan is None or plan.step != result.step:
            raise ValueError(f"a result of step {result.step}, but the step under way is {plan and plan.step}")
        ended = [finished.seq_id for finished in result.finished] + [seq_id for seq_id, _ in result.failed]
        strangers = [seq_id for seq_id in ended if seq_id not in self._running]
        if strangers or len(set(ended)) != len(ended):
            raise ValueError(f"step {result.step} ended {ended}, of which {strangers} do not run")
        return plan

    def check_integrity(self) -> None:
        """Raise AssertionError unless each sequence is in one container and all counts are right. O(everything)."""
        self._waiting.check_integrity()
        self._probation.check_integrity()
        self._running.check_integrity()
        waiting = [*self._waiting, *self._probation.waiting()]
        if sorted(seq.seq_id for seq in (*waiting, *self._running)) != sorted(self._sequences):
            raise AssertionError("a sequence is lost or in two containers")
        if any(seq.status is not SequenceStatus.WAITING for seq in waiting):
            raise AssertionError("a waiting sequence is marked otherwise")
        if not set(self._parked) <= {seq.seq_id for seq in waiting}:
            raise AssertionError("search state is kept of a sequence that does not wait")
        if any(seq.length != START_LENGTH for seq in waiting if seq.seq_id not in self._parked):
            raise AssertionError("a sequence kept its progress without its search state")
        if self.waiting_tokens != sum(len(seq.source_ids) for seq in waiting):
            raise AssertionError("the waiting tokens are miscounted")
