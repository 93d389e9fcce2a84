"""The step loop's body: scheduler and runner, joined. Owned by one thread; the carriers (bridge/) call it.

`add`, `update`, `abort` and `step` never block on anything but the runner. Imports no torch: whatever the runner
raises is handled by what it is, not by where it comes from.
"""

from __future__ import annotations

import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from nllbd.bridge.protocol import STEP_BOUNDS_S, EngineInfo, EngineSnapshot, EngineStats, StepTime
from nllbd.sched.census import census
from nllbd.sched.plan import FatalRunnerError, Runner, StepPlan, StepResult
from nllbd.sched.scheduler import Scheduler
from nllbd.sched.sequence import Priority, SequenceOutcome, SequenceRequest

LAST_STEPS = 64
MAX_CLIENTS_SHOWN = 50
RATE_WINDOW_S = 10.0
"""Seconds of busy time over which the rate forgets (to 1/e)."""


class Rate:
    """Tokens a second of busy time, forgetting exponentially. Idle time does not count: it is a rate of service."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._tokens = 0.0
        self._busy_s = 0.0

    def record(self, num_tokens: int, busy_s: float) -> None:
        kept = math.exp(-busy_s / self._window_s)
        self._tokens = self._tokens * kept + num_tokens
        self._busy_s = self._busy_s * kept + busy_s

    @property
    def per_s(self) -> float:
        """0.0 before the first step."""
        return self._tokens / self._busy_s if self._busy_s > 0 else 0.0


class Engine:
    """Every sequence added gets exactly one outcome, out of some later `step`, also when steps raise.

    The exception is FatalRunnerError: it leaves `step`, the process has to exit, and who holds the requests (the
    supervisor) submits the unfinished ones to the next engine.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, info: EngineInfo, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.info = info
        self.runner = runner  # public: the engine process wraps it to announce each step
        self._scheduler = scheduler
        self._clock = clock
        self._rate = Rate()
        self._steps = 0
        self._source_tokens = 0
        self._target_tokens = 0
        self._encode_s = 0.0
        self._decode_s = 0.0
        self._step_s = 0.0
        self._step_counts = [0] * (len(STEP_BOUNDS_S) + 1)
        self._last_steps: deque[StepTime] = deque(maxlen=LAST_STEPS)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything. When False the loop may sleep until the next message."""
        return self._scheduler.has_work

    def add(self, requests: Iterable[SequenceRequest]) -> None:
        """Take sequences in. Raises ValueError for an id that is still alive."""
        for request in requests:
            self._scheduler.add(request)

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        """Raise class or deadline; unknown ids have ended and are ignored."""
        self._scheduler.update(seq_id, priority, deadline)

    def abort(self, seq_ids: Iterable[int]) -> None:
        """End sequences; their outcomes come with the next step. Unknown ids have ended and are ignored."""
        self._scheduler.abort(seq_ids)

    def step(self) -> list[SequenceOutcome]:
        """One pass: plan, run, apply. Returns what ended, for whatever reason.

        Raises FatalRunnerError as the runner does, and whatever its `reset` raises: both mean that the process is done.
        """
        plan = self._scheduler.schedule()
        begin = self._clock()
        try:
            result = self._execute(plan)
        except FatalRunnerError:
            raise
        except Exception as error:  # whatever it is, one of the batch may be to blame for it, and the others are not
            self.runner.reset()
            return self._scheduler.fail_step(f"the step raised {type(error).__name__}: {error}")
        self._record(plan, result, self._clock() - begin)
        return self._scheduler.apply(result)

    @property
    def stats(self) -> EngineStats:
        """A snapshot. `target_tokens` are positions decided (one a sequence and step, whatever its lanes)."""
        scheduler = self._scheduler
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            num_lanes=scheduler.num_lanes,
            waiting_tokens=scheduler.waiting_tokens,
            used_blocks=scheduler.kv.pool.num_used,
            num_blocks=scheduler.kv.pool.num_blocks,
            steps=self._steps,
            source_tokens=self._source_tokens,
            target_tokens=self._target_tokens,
            preemptions=scheduler.num_preemptions,
            encode_s=self._encode_s,
            decode_s=self._decode_s,
            last_step_s=self._last_steps[-1].step_s if self._last_steps else 0.0,
            tokens_per_s=self._rate.per_s,
            step_s=self._step_s,
            step_counts=tuple(self._step_counts),
        )

    def inspect(self, check: bool) -> EngineSnapshot:
        """A look inside, between two steps. `check`: the books, too. O(everything) either way."""
        clients = census(self._scheduler)
        return EngineSnapshot(
            clients=tuple(clients[:MAX_CLIENTS_SHOWN]),
            num_clients=len(clients),
            num_parked=self._scheduler.num_parked,
            lane_limit=self._scheduler.lane_limit,
            last_steps=tuple(self._last_steps),
            integrity=self._find_imbalance() if check else None,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError if the scheduler's books do not balance. O(everything): for tests and soaks."""
        self._scheduler.check_integrity()

    def _find_imbalance(self) -> str:
        try:
            self.check_integrity()
        except AssertionError as error:
            return str(error)
        return ""

    def _execute(self, plan: StepPlan) -> StepResult:
        if plan.is_empty and not plan.released and not plan.preempted:
            return StepResult(step=plan.step)
        return self.runner.execute(plan)

    def _record(self, plan: StepPlan, result: StepResult, step_s: float) -> None:
        if plan.is_empty:
            return
        self._steps += 1
        self._source_tokens += sum(len(started.request.source_ids) for started in plan.started)
        self._target_tokens += plan.num_sequences
        self._encode_s += result.encode_s
        self._decode_s += result.decode_s
        self._step_s += step_s
        self._step_counts[bisect.bisect_left(STEP_BOUNDS_S, step_s)] += 1
        self._last_steps.append(
            StepTime(
                plan.step,
                plan.num_sequences,
                plan.num_lanes,
                plan.num_encode_tokens,
                step_s,
                result.encode_s,
                result.decode_s,
            )
        )
        self._rate.record(plan.num_sequences, step_s)
