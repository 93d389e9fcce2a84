"""One life of the engine process: start it, watch its pulse, learn how it ended. Never restarts anything.

Judges only what it can prove: a stopped process by the kernel's word, a silent one after a generous while, a hanging
step by the child's own heartbeat. A stall of this process or of the machine is never held against the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nllbd
from nllbd.bridge.channel import Channel
from nllbd.bridge.codec import FromEngine, Heartbeat, Inspection, Ready, Report, Start, StartFailed, Work
from nllbd.bridge.pace import Pace
from nllbd.bridge.probation import Cause
from nllbd.bridge.protocol import EngineConfig, EngineInfo

_log = logging.getLogger(__name__)
_TAIL_LINES = 40
_CHUNK_BYTES = 1 << 16
_MAX_LINE = 2000
_REAP_S = 5.0
_OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class Limits:
    """When a child counts as faulty. All seconds.

    Attributes:
        heartbeat_s: how often the child says that it lives, and how often we look.
        stopped_s: silence after which a process that the kernel calls stopped is frozen.
        silent_s: silence of a process that is not stopped; long, as a loaded machine may starve it.
        step_s: how long one step may last at the most.
        step_floor_s: what a step may last in any case; between the two, `pace.Pace` decides.
        load_s: how long building the engine may take (weights may come over a network).
    """

    heartbeat_s: float = 0.5
    stopped_s: float = 2.0
    silent_s: float = 15.0
    step_s: float = 30.0
    step_floor_s: float = 3.0
    load_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended. `start_error` is (code, message) of a typed refusal to start."""

    cause: Cause
    message: str
    stderr_tail: str = ""
    start_error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """What a child tells its owner, on the loop. `is_hang_trial` asks whether it has only suspects of a hang."""

    on_ready: Callable[[EngineInfo], None]
    on_report: Callable[[Report], None]
    on_drained: Callable[[], None]
    is_hang_trial: Callable[[], bool] = lambda: False
    on_inspection: Callable[[Inspection], None] = lambda inspection: None


class Child:
    """A started engine process.

    Attributes:
        is_ready: the engine is built.
        in_step: ids of the sequences in the last step that it began.
        progress_at: when it last showed that it does what it is for: became ready, began a step, delivered.
        num_outcomes: how much it has delivered.
    """

    def __init__(self, config: EngineConfig, limits: Limits, listener: Listener, pace: Pace) -> None:
        self._config = config
        self._limits = limits
        self._listener = listener
        self._pace = pace
        self._pace.begin_life()
        self._beats: tuple[int, int] = (0, 0)  # a step, and how many heartbeats came while it lasted
        self._verdict: asyncio.Future[Death | None] = asyncio.get_running_loop().create_future()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._started_at = self._heard_at = self.progress_at = time.monotonic()
        self._start_error: tuple[str, str] | None = None
        self.is_ready = False
        self.in_step: tuple[int, ...] = ()
        self.num_outcomes = 0
        self._process: Process
        self._channel: Channel

    async def live(self) -> Death:
        """Start the process and return when it has ended or was found faulty and killed. Cancelling this kills it.

        Raises OSError when no process can be started.
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = await _spawn(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = Channel(ours, self._on_message, self._listener.on_drained, self._on_closed)
        self._channel.send(Start(self._config, self._limits.heartbeat_s))
        stderr = asyncio.create_task(self._read_stderr())
        watch = asyncio.create_task(self._watch())
        try:
            verdict = await self._verdict
            return await self._bury(verdict, stderr)
        finally:
            watch.cancel()
            stderr.cancel()
            self.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _REAP_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def can_take_work(self) -> bool:
        return self.is_ready and self._channel.can_send

    def send(self, work: Work) -> None:
        """Only when `can_take_work`. Raises what `codec.encode` raises."""
        self._channel.send(work)

    def kill(self) -> None:
        """SIGKILL, at once: it holds nothing that needs saving."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                self._process.kill()

    async def _bury(self, verdict: Death | None, stderr: asyncio.Task[None]) -> Death:
        """Wait until the process is gone; with no verdict of ours, its exit status tells the cause."""
        with contextlib.suppress(TimeoutError):
            if verdict is None:
                await asyncio.wait_for(self._process.wait(), _REAP_S)
        closed_itself = self._process.returncode is not None
        self.kill()
        try:
            await asyncio.wait_for(self._process.wait(), _REAP_S)
            await asyncio.wait_for(stderr, _REAP_S)  # its last words
        except TimeoutError:
            _log.error("engine process %d does not go away", self.pid)
        if verdict is None:
            verdict = _read_status(self._process.returncode if closed_itself else None)
        return replace(verdict, stderr_tail="\n".join(self._tail), start_error=self._start_error)

    def _on_message(self, message: FromEngine) -> None:
        self._heard_at = time.monotonic()
        match message:
            case Report():
                if message.in_step is not None:
                    self.in_step = message.in_step
                if message.in_step or message.outcomes:
                    self.progress_at = self._heard_at
                self.num_outcomes += len(message.outcomes)
                self._listener.on_report(message)
            case Heartbeat():
                self._on_heartbeat(message)
            case Ready():
                self.is_ready = True
                self.progress_at = self._heard_at
                self._listener.on_ready(message.info)
            case StartFailed():
                self._start_error = (message.code, message.message)
            case Inspection():
                self._listener.on_inspection(message)

    def _on_heartbeat(self, beat: Heartbeat) -> None:
        """Judge the step that lasts. Time in which a frozen or starved child could not even beat does not count."""
        self._pace.record(beat.num_steps, beat.longest_s)
        step, num_beats = self._beats
        if beat.step != step:
            self.progress_at = self._heard_at
        self._beats = (beat.step, num_beats + 1 if beat.step == step and beat.step_s else 1)
        limit_s = self._pace.limit_s(on_trial=self._listener.is_hang_trial())
        if beat.step_s > limit_s and self._beats[1] * self._limits.heartbeat_s > limit_s / 2:
            self._condemn(Cause.HANG, f"step {beat.step} hangs for {beat.step_s:.1f} s")

    def _on_closed(self, reason: str) -> None:
        _log.debug("engine process %d: %s", self.pid, reason)
        if not self._verdict.done():
            self._verdict.set_result(None)

    def _condemn(self, cause: Cause, message: str) -> None:
        if not self._verdict.done():
            self._verdict.set_result(Death(cause, message))

    async def _watch(self) -> None:
        """Look at the child's pulse. When this process was late itself, the child gets the same grace."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._limits.heartbeat_s)
            now = time.monotonic()
            self._heard_at = min(now, self._heard_at + max(0.0, now - before - 2 * self._limits.heartbeat_s))
            if now - self._heard_at > self._limits.stopped_s:
                await self._examine(now - self._heard_at)
            if not self.is_ready and now - self._started_at > self._limits.load_s:
                self._condemn(Cause.FAULT, f"not ready after {self._limits.load_s:g} s")

    async def _examine(self, silence_s: float) -> None:
        if await asyncio.to_thread(_is_stopped, self.pid):
            self._condemn(Cause.OUTSIDE, f"stopped and silent for {silence_s:.1f} s")
        elif self.is_ready and silence_s > self._limits.silent_s:
            self._condemn(Cause.FAULT, f"silent for {silence_s:.0f} s")

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        rest = b""
        while chunk := await stream.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MAX_LINE:]
            for line in lines:
                self._keep_line(line)
        if rest:
            self._keep_line(rest)

    def _keep_line(self, raw: bytes) -> None:
        line = raw[:_MAX_LINE].decode("utf-8", "replace").rstrip()
        if line:
            self._tail.append(line)
            _log.info("engine process %d: %s", self.pid, line)


async def _spawn(theirs: socket.socket) -> Process:
    """Start the worker with its end of the socket. A session of its own: Ctrl-C in a terminal is the daemon's alone."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nllbd.engine.worker",
        str(theirs.fileno()),
        str(os.getpid()),
        stdin=DEVNULL,
        stderr=PIPE,
        pass_fds=(theirs.fileno(),),
        env=_environment(),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Ours, and the means to find this very package again if it is run from a checkout."""
    environ = {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1", **os.environ}
    root = Path(nllbd.__file__).parent.parent
    if root.name not in {"site-packages", "dist-packages"}:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environ.get("PYTHONPATH"))))
    return environ


def _read_status(status: int | None) -> Death:
    if status is None:
        return Death(Cause.FAULT, "closed its connection but lived on")
    if status >= 0:
        return Death(Cause.FAULT, f"exited with status {status}")
    cause = Cause.OUTSIDE if -status in _OUTSIDE_SIGNALS else Cause.FAULT
    return Death(cause, f"was killed by signal {-status} ({signal.strsignal(-status)})")


def _is_stopped(pid: int) -> bool:
    """Whether the kernel says that the process is stopped (SIGSTOP, a debugger). False where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in {"T", "t"}
