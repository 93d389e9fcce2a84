"""The engine process as a bare process: what it says, in what order, and that it never outlives its parent's socket."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nllbd.bridge.codec import (
    FromEngine,
    Heartbeat,
    Ready,
    Report,
    Start,
    StartFailed,
    ToEngine,
    Work,
    client_decoder,
    encode,
)
from nllbd.bridge.protocol import EngineConfig
from nllbd.engine.worker import EXIT_NOT_STARTED, EXIT_ORPHANED
from nllbd.sched.sequence import FinishReason, SearchParams, SequenceRequest

POISON = 77_777
ROOT = Path(__file__).parents[2]


class Worker:
    """The parent's side with plain blocking calls."""

    def __init__(self, runner: str, heartbeat_s: float = 60.0, model_path: str = "", parent: int | None = None) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(30)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nllbd.engine.worker", str(theirs.fileno()), str(parent or os.getpid())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.decoder = client_decoder()
        self.pending: list[FromEngine] = []
        self.send(Start(EngineConfig(model_path=model_path, runner=runner), heartbeat_s))

    def send(self, message: ToEngine) -> None:
        self.sock.sendall(encode(message))

    def messages(self) -> Iterator[FromEngine]:
        """Everything it says, until it has no more to say."""
        while True:
            while self.pending:
                yield self.pending.pop(0)
            data = self.sock.recv(1 << 16)
            if not data:
                return
            self.pending += self.decoder.feed(data)

    def reports(self) -> Iterator[Report]:
        return (message for message in self.messages() if isinstance(message, Report))

    def close(self) -> int:
        self.sock.close()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start() -> Iterator[type[Worker]]:
    started: list[Worker] = []

    class Kept(Worker):
        def __init__(self, *args: object, **kw: object) -> None:
            started.append(self)
            super().__init__(*args, **kw)  # type: ignore[arg-type]

    yield Kept
    for worker in started:
        worker.close()


def ask(seq_id: int, *tokens: int) -> SequenceRequest:
    return SequenceRequest(seq_id, (8, *tokens, 2), 9, SearchParams(num_beams=1), math.inf)


def ready(worker: Worker) -> None:
    assert isinstance(next(m for m in worker.messages() if not isinstance(m, Heartbeat)), Ready)


def test_says_who_is_in_the_step_before_it_dies_of_it(start: type[Worker]) -> None:
    worker = start(f"fake:die_on={POISON}")
    ready(worker)
    worker.send(Work((ask(1, *range(100, 120)), ask(2, 5, POISON))))
    in_step = [report.in_step for report in worker.reports() if report.in_step is not None]
    assert in_step == [(1, 2)]
    assert worker.close() == -9


def test_says_nothing_of_the_set_while_it_stays_and_empties_it_at_the_end(start: type[Worker]) -> None:
    worker = start("fake")
    ready(worker)
    worker.send(Work((ask(1, *range(100, 130)), ask(2, 5))))
    seen: list[tuple[int, ...]] = []
    outcomes = []
    for report in worker.reports():
        outcomes += report.outcomes
        if report.in_step is not None:
            seen.append(report.in_step)
        if len(outcomes) == 2:
            break
    assert seen == [(1, 2), (1,), ()]
    assert [outcome.seq_id for outcome in outcomes] == [2, 1]
    assert report.stats is not None
    assert report.stats.num_running == 0


def test_an_abort_of_what_runs_comes_back_as_an_outcome(start: type[Worker]) -> None:
    worker = start("fake:step_ms=5")
    ready(worker)
    worker.send(Work((ask(1, *range(100, 1000)),)))
    next(report for report in worker.reports() if report.in_step == (1,))
    worker.send(Work(aborts=(1, 55)))
    outcome = next(outcome for report in worker.reports() for outcome in report.outcomes)
    assert (outcome.seq_id, outcome.reason) == (1, FinishReason.ABORTED)


def test_beats_while_idle_and_tells_how_long_a_step_lasts(start: type[Worker]) -> None:
    worker = start(f"fake:hang_on={POISON}", heartbeat_s=0.02)
    ready(worker)
    assert next(m for m in worker.messages() if isinstance(m, Heartbeat)).step_s == 0.0
    worker.send(Work((ask(1, POISON),)))
    beat = next(m for m in worker.messages() if isinstance(m, Heartbeat) and m.step_s > 0.1)
    assert beat.step == 1


def test_ends_with_the_socket_even_in_a_hanging_step(start: type[Worker]) -> None:
    idle = start("fake")
    ready(idle)
    assert idle.close() == EXIT_ORPHANED
    hanging = start(f"fake:hang_on={POISON}", heartbeat_s=0.02)
    ready(hanging)
    hanging.send(Work((ask(1, POISON),)))
    next(m for m in hanging.messages() if isinstance(m, Heartbeat) and m.step_s > 0)
    assert hanging.close() == EXIT_ORPHANED


def test_is_the_one_to_go_when_memory_runs_out(start: type[Worker]) -> None:
    worker = start("fake")
    ready(worker)
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{worker.process.pid}/oom_score_adj").read_text()) == min(1000, ours + 300)


def test_a_parent_that_died_before_we_could_watch_it(start: type[Worker]) -> None:
    assert start("fake", parent=1 if os.getpid() != 1 else 2).process.wait(30) == EXIT_ORPHANED


def test_says_why_it_cannot_start(start: type[Worker], tmp_path: Path) -> None:
    worker = start("model", model_path=str(tmp_path))
    message = next(m for m in worker.messages() if not isinstance(m, Heartbeat))
    assert isinstance(message, StartFailed)
    assert message.code == "checkpoint"
    assert str(tmp_path) in message.message
    assert worker.process.wait(30) == EXIT_NOT_STARTED
