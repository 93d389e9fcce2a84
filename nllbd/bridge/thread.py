"""The engine in a thread of this process, for the command line and for use as a library. Same Protocol as process.py,
without the supervisor: a fault here is the caller's own. Imports the engine (and so torch) only when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from nllbd.bridge.alarm import DeadlineAlarm
from nllbd.bridge.codec import Inspection, Work
from nllbd.bridge.inspection import Inspections
from nllbd.bridge.ledger import Ledger
from nllbd.bridge.protocol import EngineConfig, EngineInfo, EngineSnapshot, EngineState, EngineStats
from nllbd.errors import InternalError, NllbdError
from nllbd.sched.sequence import FinishReason, Priority, SequenceOutcome, SequenceRequest

_log = logging.getLogger(__name__)


class StepEngine(Protocol):
    """What the thread needs of an engine."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, requests: Iterable[SequenceRequest]) -> None: ...

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None: ...

    def abort(self, seq_ids: Iterable[int]) -> None: ...

    def step(self) -> list[SequenceOutcome]: ...

    def inspect(self, check: bool) -> EngineSnapshot: ...


class _Inbox:
    """What the loop hands to the thread: work, and the word to stop. The thread sleeps in `take` without any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._works: list[Work] = []
        self._stopped = False

    def put(self, work: Work) -> None:
        with self._changed:
            self._works.append(work)
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def take(self, block: bool) -> list[Work] | None:
        """What has come; waits for something if `block`. None = stop."""
        with self._changed:
            while block and not self._works and not self._stopped:
                self._changed.wait()
            works, self._works = self._works, []
            return None if self._stopped else works


class ThreadEngine:
    """An `EngineClient` whose engine runs in a thread. One event loop.

    `factory` builds the engine, in that thread; default `engine.build.build_engine`.
    """

    def __init__(self, config: EngineConfig, factory: Callable[[EngineConfig], StepEngine] | None = None) -> None:
        self._config = config
        self._factory = factory
        self._ledger = Ledger(
            config.max_waiting_segments, config.max_waiting_tokens, lambda seq_id: self.abort((seq_id,))
        )
        self._alarm = DeadlineAlarm(self._ledger, self._tell_aborted)
        self._inbox = _Inbox()
        self._inspections = Inspections(self._tell_question)
        self._ids = itertools.count(1)
        self._state = EngineState.LOADING
        self._info: EngineInfo | None = None
        self._stats = EngineStats()
        self._failure = ""
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        return self._info

    @property
    def stats(self) -> EngineStats:
        """The engine's last snapshot; what it has not taken in yet is counted as waiting."""
        return replace(self._stats, num_waiting=self.num_waiting)

    @property
    def num_waiting(self) -> int:
        """As in `stats`, at a hundredth of the cost."""
        return max(0, len(self._ledger) - self._stats.num_running)

    @property
    def num_restarts(self) -> int:
        return 0

    @property
    def healthy(self) -> bool:
        return self._state is not EngineState.FAILED

    async def start(self) -> None:
        """Begin loading; returns at once."""
        if self._thread is not None:
            return
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(loop,), name="engine", daemon=True)
        self._thread.start()

    async def wait_ready(self) -> EngineInfo:
        """Raises what building the engine raised if that was one of our errors, else InternalError."""
        if self._ready is None:
            raise RuntimeError("start() first")
        return await asyncio.shield(self._ready)

    def next_seq_id(self) -> int:
        return next(self._ids)

    def submit(self, requests: Iterable[SequenceRequest]) -> list[asyncio.Future[SequenceOutcome]]:
        """Queue sequences, all or none (OVERLOADED)."""
        futures = self._ledger.add(requests)
        if self._state in (EngineState.FAILED, EngineState.STOPPED):
            self._ledger.close_all(
                FinishReason.FAILED, f"the engine has {self._state}: {self._failure or 'by request'}"
            )
        elif taken := self._ledger.take(math.inf):
            self._inbox.put(Work(taken))
        self._alarm.set()
        return futures

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        """Change class and deadline of a sequence; unknown ones are finished ones."""
        if (update := self._ledger.update(seq_id, priority, deadline)) is not None:
            self._inbox.put(Work(updates=(update,)))
        self._alarm.set()

    def abort(self, seq_ids: Iterable[int]) -> None:
        """Futures resolve as ABORTED at once; the engine hears of it before its next step."""
        self._tell_aborted(self._ledger.abort(seq_ids))

    async def stop(self) -> None:
        """End the engine after the step it is in; what is unfinished resolves as ABORTED."""
        self._state = EngineState.STOPPED
        self._inbox.stop()
        self._alarm.cancel()
        self._ledger.close_all(FinishReason.ABORTED, "the engine was stopped")
        self._refuse_ready(InternalError("the engine was stopped before it was ready"))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def inspect(self, check: bool = False) -> EngineSnapshot | None:
        """A look inside; None when there is no engine, or it is in a step that lasts."""
        return await self._inspections.ask(check) if self._state is EngineState.READY else None

    def _tell_question(self) -> None:
        if (question := self._inspections.take()) is not None:
            self._inbox.put(Work(inspect=question))

    def _tell_aborted(self, seq_ids: Sequence[int]) -> None:
        if seq_ids:
            self._inbox.put(Work(aborts=tuple(seq_ids)))

    # On the loop, called from the thread

    def _on_ready(self, info: EngineInfo) -> None:
        if self._state is EngineState.LOADING:
            self._state, self._info = EngineState.READY, info
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(info)

    def _on_step(self, outcomes: Sequence[SequenceOutcome], stats: EngineStats) -> None:
        self._stats = stats
        for outcome in outcomes:
            self._ledger.resolve(outcome)

    def _on_failure(self, error: Exception) -> None:
        if self._state is EngineState.STOPPED:
            return
        typed = error if isinstance(error, NllbdError) else InternalError(f"the engine failed: {error!r}")
        self._state, self._failure = EngineState.FAILED, typed.message
        self._ledger.close_all(FinishReason.FAILED, typed.message)
        self._refuse_ready(typed)

    def _refuse_ready(self, error: NllbdError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whoever awaits it sees it; nobody has to

    # In the thread

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            engine = self._build()
            _call(loop, self._on_ready, engine.info)
            self._serve(engine, loop)
        except Exception as error:
            _log.debug("the engine's thread ends", exc_info=True)
            _call(loop, self._on_failure, error)

    def _build(self) -> StepEngine:
        if self._factory is not None:
            return self._factory(self._config)
        from nllbd.engine.build import build_engine

        return build_engine(self._config)

    def _serve(self, engine: StepEngine, loop: asyncio.AbstractEventLoop) -> None:
        while (works := self._inbox.take(block=not engine.has_work)) is not None:
            for work in works:
                engine.add(work.requests)
                for update in work.updates:
                    engine.update(update.seq_id, update.priority, update.deadline)
                engine.abort(work.aborts)
                if (question := work.inspect) is not None:
                    answer = Inspection(question.token, engine.inspect(question.check))
                    _call(loop, self._inspections.answer, answer)
            outcomes = engine.step() if engine.has_work else []
            _call(loop, self._on_step, outcomes, engine.stats)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    """Have the loop call `function`; a loop that was closed meanwhile has nobody who waits."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
