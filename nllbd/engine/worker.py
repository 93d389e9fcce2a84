"""The engine process: `python -m nllbd.engine.worker FD PARENT`, started by the daemon and by nobody else.

The main thread runs the engine's loop and blocks when there is nothing to do; a second thread says that the process
lives. Which sequences a step holds is told before the step begins, as the step may be the last one. The process never
outlives its parent: it dies by the kernel's hand when the parent does, and by its own when the socket ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nllbd.bridge.codec import (
    CodecError,
    FromEngine,
    Heartbeat,
    Inspection,
    Ready,
    Report,
    Start,
    StartFailed,
    ToEngine,
    Work,
    encode,
    engine_decoder,
)
from nllbd.bridge.protocol import EngineConfig
from nllbd.engine.engine import Engine
from nllbd.errors import NllbdError
from nllbd.sched.plan import Runner, StepPlan, StepResult
from nllbd.sched.sequence import SequenceOutcome

_READ_BYTES = 1 << 18
_STATS_EVERY_S = 0.1
_RECENT_STEPS = 2000
_PR_SET_PDEATHSIG = 1
_OOM_SCORE, _MAX_OOM_SCORE = 300, 1000  # thousandths of the memory there is
EXIT_ORPHANED = 70
EXIT_NOT_STARTED = 71


class Connection:
    """The child's end: blocking writes from two threads, reads from the main one. Its end is the process's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = engine_decoder()
        self._inbox = memoryview(bytearray(_READ_BYTES))
        self._write_lock = threading.Lock()

    def send(self, message: FromEngine) -> None:
        frame = encode(message)
        try:
            with self._write_lock:
                self._sock.sendall(frame)
        except OSError:
            os._exit(EXIT_ORPHANED)  # nobody is left to work for, whatever the other thread is doing

    def receive(self, block: bool) -> list[ToEngine]:
        """What has come, in order; waits for something if `block`. Ends the process when the parent is gone."""
        messages: list[ToEngine] = []
        while True:
            wait = block and not messages
            try:
                size = self._sock.recv_into(self._inbox, 0, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            except OSError:
                size = 0
            if not size:
                os._exit(EXIT_ORPHANED)
            try:
                messages += self._decoder.feed(self._inbox[:size])
            except CodecError as error:
                sys.exit(f"the parent sent garbage: {error}")


@dataclass(slots=True)
class Pulse:
    """Where the main thread is; the heartbeat thread reads it. Each attribute is valid by itself."""

    step: int = 0
    began: float | None = None
    num_steps: int = 0
    longest_s: float = 0.0
    _earlier_s: float = 0.0  # the longest of the `_RECENT_STEPS` before those that are counted now
    _present_s: float = 0.0

    def heartbeat(self) -> Heartbeat:
        began = self.began
        step_s = 0.0 if began is None else time.monotonic() - began
        return Heartbeat(self.step, step_s, self.num_steps, self.longest_s)

    def begin(self) -> None:
        self.began = time.monotonic()

    def end(self) -> None:
        """The step is done."""
        assert self.began is not None
        took_s = time.monotonic() - self.began
        self.began = None
        if self.num_steps % _RECENT_STEPS == 0:
            self._earlier_s, self._present_s = self._present_s, 0.0
        self._present_s = max(self._present_s, took_s)
        self.longest_s = max(self._earlier_s, self._present_s)
        self.num_steps += 1


class StepReporter:
    """A runner around the real one that announces each step before it begins."""

    def __init__(self, engine: Engine, connection: Connection, pulse: Pulse) -> None:
        self._engine = engine
        self._runner: Runner = engine.runner
        self._connection = connection
        self._pulse = pulse
        self._held: dict[int, None] = {}
        self._announced: tuple[int, ...] = ()
        self._outcomes: list[SequenceOutcome] = []
        self._stats_at = 0.0

    def execute(self, plan: StepPlan) -> StepResult:
        self._follow(plan)
        self._pulse.step = plan.step
        self.flush(always=False)
        self._pulse.begin()
        result = self._runner.execute(plan)
        self._pulse.end()
        for seq_id in [done.seq_id for done in result.finished] + [seq_id for seq_id, _ in result.failed]:
            self._held.pop(seq_id, None)
        return result

    def reset(self) -> None:
        self._held.clear()
        self._pulse.began = None
        self._runner.reset()

    def keep(self, outcomes: Sequence[SequenceOutcome]) -> None:
        """Have these travel with the next report."""
        self._outcomes += outcomes

    def flush(self, always: bool = True) -> None:
        """Send outcomes, statistics and a changed set; if not `always`, only when there is something to say."""
        now = time.monotonic()
        in_step = tuple(self._held)
        changed = in_step != self._announced
        if not (always or changed or self._outcomes or now - self._stats_at >= _STATS_EVERY_S):
            return
        outcomes, self._outcomes = tuple(self._outcomes), []
        self._announced, self._stats_at = in_step, now
        report = Report(self._pulse.step, in_step if changed else None, outcomes, self._engine.stats)
        self._connection.send(report)

    def _follow(self, plan: StepPlan) -> None:
        for seq_id in (*plan.released, *plan.preempted):
            self._held.pop(seq_id, None)
        for started in plan.started:
            self._held[started.request.seq_id] = None


def main(argv: Sequence[str]) -> int:
    """Serve until the parent goes. Returns only when the engine could not be built."""
    _die_with(int(argv[2]))
    _leave_signals_to_the_parent()
    _go_first()
    connection = Connection(_adopt(int(argv[1])))
    start, *early = connection.receive(block=True)
    assert isinstance(start, Start)
    pulse = Pulse()
    _start_heartbeat(connection, pulse, start.heartbeat_s)
    try:
        engine = _build(start.config)
    except Exception as error:
        code = error.code if isinstance(error, NllbdError) else "internal"
        connection.send(StartFailed(code, str(error) or repr(error)))
        if not isinstance(error, NllbdError):
            raise
        return EXIT_NOT_STARTED
    reporter = StepReporter(engine, connection, pulse)
    engine.runner = reporter
    connection.send(Ready(engine.info))
    _serve(engine, reporter, connection, early)
    return 0


def _serve(engine: Engine, reporter: StepReporter, connection: Connection, messages: list[ToEngine]) -> None:
    while True:
        if not engine.has_work:
            reporter.flush()
        messages += connection.receive(block=not engine.has_work and not messages)
        for message in messages:
            if isinstance(message, Work):
                _take_in(engine, message)
                if (question := message.inspect) is not None:
                    connection.send(Inspection(question.token, engine.inspect(question.check)))
        messages = []
        if engine.has_work:
            reporter.keep(engine.step())


def _take_in(engine: Engine, work: Work) -> None:
    engine.add(work.requests)
    for update in work.updates:
        engine.update(update.seq_id, update.priority, update.deadline)
    if work.aborts:
        engine.abort(work.aborts)


def _build(config: EngineConfig) -> Engine:
    from nllbd.engine.build import build_engine  # imports torch for a real model; the heartbeat runs by then

    return build_engine(config)


def _start_heartbeat(connection: Connection, pulse: Pulse, every_s: float) -> None:
    def beat() -> None:
        while True:
            connection.send(pulse.heartbeat())
            time.sleep(every_s)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def _adopt(fd: int) -> socket.socket:
    """The inherited socket, not to be inherited further: its end is how the parent learns of our death."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _leave_signals_to_the_parent() -> None:
    """A stop is the parent's to carry out: it drains first, while systemd signals the whole group."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _go_first() -> None:
    """When memory runs out, the kernel is to end us, who are started again with nothing lost, before the parent or a
    database beside us (Linux; a process may always make itself the likelier one)."""
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/self/oom_score_adj")
        path.write_text(str(min(_MAX_OOM_SCORE, int(path.read_text()) + _OOM_SCORE)))


def _die_with(parent: int) -> None:
    """Have the kernel kill us when the parent's main thread ends, however it ends (Linux; elsewhere EOF must do)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
