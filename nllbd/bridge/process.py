"""The engine as a supervised child process. Faults of the child become delays, not errors: it is restarted and every
unfinished sequence is sent again, for translation has no side effects. Never imports torch or the engine itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import add

from nllbd.bridge.alarm import DeadlineAlarm
from nllbd.bridge.child import Child, Death, Limits, Listener
from nllbd.bridge.codec import CodecError, Report, Update, Work, encode
from nllbd.bridge.inspection import Inspections
from nllbd.bridge.ledger import Ledger
from nllbd.bridge.pace import Pace
from nllbd.bridge.policy import RestartPolicy, Setbacks
from nllbd.bridge.probation import Cause, Probation, Quarantine
from nllbd.bridge.protocol import EngineConfig, EngineInfo, EngineSnapshot, EngineState, EngineStats
from nllbd.errors import CheckpointError, ConfigError, InternalError, NllbdError
from nllbd.sched.sequence import FinishReason, Priority, SequenceOutcome, SequenceRequest

_log = logging.getLogger(__name__)
_MAX_WORK_TOKENS = 50_000  # of one message to the child: some 200 kB
_STUCK_STEPS = 2.0  # of the longest that a step may last
_START_ERRORS: dict[str, type[NllbdError]] = {kind.code: kind for kind in (CheckpointError, ConfigError)}
_UNSENDABLE = (CodecError, ValueError, TypeError, OverflowError)


class ProcessEngine:
    """An `EngineClient` whose engine lives in a child process. One event loop."""

    def __init__(
        self,
        config: EngineConfig,
        limits: Limits | None = None,
        policy: RestartPolicy | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._config = config
        self._limits = limits or Limits()
        self._pace = Pace(self._limits.step_s, self._limits.step_floor_s)
        self._policy = policy or RestartPolicy()
        self._quarantine = quarantine or Quarantine()
        self._probation = Probation()
        self._ledger = Ledger(
            config.max_waiting_segments,
            config.max_waiting_tokens,
            lambda seq_id: self.abort((seq_id,)),
            self._on_closed,
        )
        self._alarm = DeadlineAlarm(self._ledger, self._on_expired)
        self._ids = itertools.count(1)
        self._state = EngineState.LOADING
        self._info: EngineInfo | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self._updates: dict[int, Update] = {}
        self._aborts: list[int] = []
        self._inspections = Inspections(self._pump_soon)
        self._pump_due = False
        self._proof: asyncio.TimerHandle | None = None
        self._setbacks = Setbacks()
        self._failure = ""
        self._busy_since = 0.0  # when there last began to be unfinished sequences
        self._past = EngineStats()  # of the children that are gone
        self._stats = EngineStats()  # of the present one
        self.num_restarts = 0

    # What the engine is

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        return self._info

    @property
    def healthy(self) -> bool:
        """False when deaths repeat without any progress, or when there is work, an engine, and no step: time for
        whoever supervises the daemon to step in."""
        in_vain = self._setbacks.fruitless >= self._policy.max_fruitless
        return self._state is not EngineState.FAILED and not in_vain and not self._is_stuck()

    def _is_stuck(self) -> bool:
        """Whether the child neither works nor dies: nothing that it says of itself gives it away, so that `Child`
        finds no fault with it."""
        child = self._child
        if child is None or not child.is_ready or not len(self._ledger):
            return False
        since = max(child.progress_at, self._busy_since)
        return time.monotonic() - since > _STUCK_STEPS * self._limits.step_s

    @property
    def failure(self) -> str:
        """How the last child ended; empty if none has."""
        return self._failure

    @property
    def stats(self) -> EngineStats:
        """The child's last snapshot; what waits on this side is counted in, counters go on through restarts. A scrape
        asks for it in a thread of its own."""
        now, past, child = self._stats, self._past, self._child
        in_step = () if child is None else child.in_step
        return replace(
            now,
            num_waiting=self.num_waiting,
            waiting_tokens=self._ledger.num_tokens - self._ledger.tokens_of(in_step),
            steps=past.steps + now.steps,
            source_tokens=past.source_tokens + now.source_tokens,
            target_tokens=past.target_tokens + now.target_tokens,
            preemptions=past.preemptions + now.preemptions,
            encode_s=past.encode_s + now.encode_s,
            decode_s=past.decode_s + now.decode_s,
            step_s=past.step_s + now.step_s,
            step_counts=tuple(map(add, past.step_counts, now.step_counts)),
            tokens_per_s=now.tokens_per_s or past.tokens_per_s,
        )

    @property
    def num_waiting(self) -> int:
        """As in `stats`, at a hundredth of the cost."""
        return max(0, len(self._ledger) - self._stats.num_running)

    async def inspect(self, check: bool = False) -> EngineSnapshot | None:
        """A look inside; None when there is no engine, or it is in a step that lasts."""
        return await self._inspections.ask(check) if self._state is EngineState.READY else None

    # Life

    async def start(self) -> None:
        """Begin loading; returns at once."""
        if self._supervisor is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._supervisor = asyncio.create_task(self._supervise(), name="engine supervisor")

    async def wait_ready(self) -> EngineInfo:
        """Raises CheckpointError, ConfigError or InternalError when the engine cannot be started."""
        if self._ready is None:
            raise RuntimeError("start() first")
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """End the engine now; what is unfinished resolves as ABORTED."""
        self._state = EngineState.STOPPED
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        self._alarm.cancel()
        self._ledger.close_all(FinishReason.ABORTED, "the engine was stopped")
        self._refuse_ready(InternalError("the engine was stopped before it was ready"))

    # Sequences

    def next_seq_id(self) -> int:
        return next(self._ids)

    def submit(self, requests: Iterable[SequenceRequest]) -> list[asyncio.Future[SequenceOutcome]]:
        """Queue sequences, all or none (OVERLOADED). Known killers are FAILED at once, all are when the engine is."""
        batch = list(requests)
        if not len(self._ledger):
            self._busy_since = time.monotonic()
        futures = self._ledger.add(batch)
        for request in batch:
            if self._state in (EngineState.STOPPED, EngineState.FAILED):
                self._resolve_failed(request.seq_id, f"the engine has {self._state}: {self._failure or 'by request'}")
            elif self._quarantine.holds(request):
                self._resolve_failed(request.seq_id, "this input made the engine fail before; it is not tried again")
        self._alarm.set()
        self._pump_soon()
        return futures

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        """Change class and deadline of a sequence; unknown ones are finished ones."""
        if (update := self._ledger.update(seq_id, priority, deadline)) is not None:
            self._updates[seq_id] = update
            self._pump_soon()
        self._alarm.set()

    def abort(self, seq_ids: Iterable[int]) -> None:
        """Futures resolve as ABORTED at once; the child hears of it before its next step."""
        self._aborts += self._ledger.abort(seq_ids)
        self._pump_soon()

    def _on_closed(self, seq_id: int) -> None:
        self._updates.pop(seq_id, None)
        if self._probation.clear(seq_id):
            self._pump_soon()

    def _resolve_failed(self, seq_id: int, message: str) -> None:
        self._ledger.resolve(SequenceOutcome(seq_id, FinishReason.FAILED, message=message))

    def _on_expired(self, known_to_child: Sequence[int]) -> None:
        self._aborts += known_to_child
        self._pump_soon()

    # To the child

    def _pump_soon(self) -> None:
        """Send at the end of this turn of the loop, so that what is submitted together travels together."""
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        child = self._child
        while child is not None and child.can_take_work and (work := self._next_work()) is not None:
            try:
                child.send(work)
            except _UNSENDABLE:
                child.send(self._without_unsendable(work))

    def _next_work(self) -> Work | None:
        requests = self._ledger.take(_MAX_WORK_TOKENS, only=self._probation.group)
        question = self._inspections.take()
        if not (requests or self._updates or self._aborts or question):
            return None
        work = Work(requests, tuple(self._updates.values()), tuple(self._aborts), question)
        self._updates, self._aborts = {}, []
        return work

    def _without_unsendable(self, work: Work) -> Work:
        """Something in there has no form on the wire: it fails alone."""
        good: list[SequenceRequest] = []
        for request in work.requests:
            try:
                encode(Work((request,)))
                good.append(request)
            except _UNSENDABLE as error:
                self._resolve_failed(request.seq_id, f"the sequence cannot be sent to the engine: {error}")
        return Work(tuple(good), work.updates, work.aborts, work.inspect)

    # From the child

    def _on_ready(self, info: EngineInfo) -> None:
        self._info = info
        self._state = EngineState.READY
        self._proof = asyncio.get_running_loop().call_later(self._policy.stable_s, self._setbacks.reset)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(info)
        _log.info("engine process %d is ready: %s, %s", info.pid, info.device, info.dtype)
        self._pump()

    def _on_report(self, report: Report) -> None:
        if report.stats is not None:
            self._stats = report.stats
        if report.outcomes:
            self._setbacks.reset()
        for outcome in report.outcomes:
            self._ledger.resolve(outcome)

    # Supervision

    async def _supervise(self) -> None:
        listener = Listener(
            self._on_ready,
            self._on_report,
            self._pump,
            lambda: self._probation.is_for_hang,
            self._inspections.answer,
        )
        try:
            while True:
                child = Child(self._config, self._limits, listener, self._pace)
                death = await self._run(child)
                if self._is_hopeless(death):
                    return
                await asyncio.sleep(self._judge(child, death))
                self.num_restarts += 1
        except Exception as error:
            _log.exception("the engine's supervisor failed")
            self._fail(InternalError(f"the engine's supervisor failed: {error!r}"))

    async def _run(self, child: Child) -> Death:
        self._child = child
        try:
            return await child.live()
        except OSError as error:
            return Death(Cause.OUTSIDE, f"cannot be started: {error}")
        finally:
            self._past, self._stats = self.stats, EngineStats()
            self._child = None
            self._updates, self._aborts = {}, []
            if self._proof is not None:
                self._proof.cancel()

    def _is_hopeless(self, death: Death) -> bool:
        """A typed refusal of the very first start would only repeat itself."""
        if death.start_error is None or self._info is not None:
            return False
        code, message = death.start_error
        self._failure = message
        self._fail(_START_ERRORS.get(code, InternalError)(message))
        return True

    def _judge(self, child: Child, death: Death) -> float:
        """Draw the consequences of a death; returns the pause before the next child in seconds."""
        self._failure = f"the engine process {death.message}"
        _log.warning("%s; its last words: %s", self._failure, death.stderr_tail or "none")
        blamed = self._blame(child, death)
        self._ledger.unsend_all()
        self._setbacks.record(delivered=child.num_outcomes > 0, blamed=blamed, was_ready=child.is_ready)
        if self._setbacks.starts >= self._policy.max_start_failures:
            self._fail(InternalError(f"{self._failure}, {self._setbacks.starts} times in a row\n{death.stderr_tail}"))
            return self._policy.failed_retry_s
        if self._state is EngineState.READY:
            self._state = EngineState.RESTARTING
        return self._policy.pause_s(self._setbacks)

    def _blame(self, child: Child, death: Death) -> bool:
        """Whether the death left suspects: those of its last step, or all it had if it never came to one."""
        suspects = [seq_id for seq_id in child.in_step if seq_id in self._ledger] or self._ledger.sent_ids()
        if not suspects:
            return False
        guilty = self._probation.record_death(suspects, death.cause)
        _log.warning("%d sequences were in its step; %d are on trial", len(suspects), self._probation.num_suspects)
        if guilty is not None:
            self._convict(guilty, death)
        return True

    def _convict(self, guilty: int, death: Death) -> None:
        request = self._ledger.request(guilty)
        self._quarantine.add(request)
        _log.error("sequence %d of request %s killed the engine repeatedly: refused", guilty, request.request_id)
        for other in self._ledger.requests():
            if self._quarantine.holds(other):
                self._resolve_failed(other.seq_id, f"this input makes the engine fail: {death.message}")

    def _fail(self, error: NllbdError) -> None:
        _log.error("the engine has failed: %s", error.message)
        self._state = EngineState.FAILED
        self._ledger.close_all(FinishReason.FAILED, error.message)
        self._refuse_ready(error)

    def _refuse_ready(self, error: NllbdError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whoever awaits it sees it; nobody has to
