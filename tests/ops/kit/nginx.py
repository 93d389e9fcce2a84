"""A real nginx with a folder of configuration, under paths of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import EllipsisType, TracebackType

READY_WITHIN_S = 20.0
STOP_WITHIN_S = 30.0


def nginx_program() -> str:
    """Path of nginx, which Debian keeps out of an ordinary user's PATH."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found, "nginx is not installed (tests ask with kit.programs.need first)"
    return found


class Nginx:
    """nginx running `folder/nginx.conf`, accepting connections when the constructor returns.

    The configuration says itself where its files go. Whatever it leaves to nginx (pid, temporary files, logs given by
    relative names) lands in `folder`. A context manager: ends it.

    Attributes:
        prefix: what its relative names start from besides `folder`; None is Debian's, where its modules are.
        ports: that must accept connections before it counts as started, e.g. `[8443]` or `[("10.1.0.1", 443)]`.
        netns: name of the network namespace it runs in (`ip netns`).
    """

    def __init__(
        self,
        folder: Path,
        ports: Sequence[int | tuple[str, int]] = (),
        *,
        netns: str | None = None,
        prefix: Path | EllipsisType | None = ...,
    ) -> None:
        self.folder, self.ports, self.netns = folder, ports, netns
        self.command = [*(["ip", "netns", "exec", netns] if netns else []), nginx_program()]
        self.command += ["-c", str(folder / "nginx.conf"), "-e", "stderr"]
        prefix = folder if prefix is ... else prefix
        self.command += ["-p", str(prefix)] if prefix is not None else []
        self._output = folder / "nginx.out"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen([*self.command, "-g", "daemon off;"], stdout=output, stderr=output)
        try:
            self._wait_started()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    @staticmethod
    def check(folder: Path) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        command = [nginx_program(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-t"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def workers(self) -> set[int]:
        """Processes that serve, those that are shutting down included."""
        return _children(self.process.pid)

    def reload(self) -> None:
        """HUP, and return when workers with the new configuration have taken over, and the former take nothing new."""
        former = self.workers()
        self.process.send_signal(signal.SIGHUP)
        self._wait(lambda: bool(self.workers() - former), "new workers")
        self._wait(lambda: not any(map(_serves, former)), "end of the former workers' serving")

    def wait_old_workers_gone(self, former: set[int], within_s: float = 60.0) -> None:
        """Return when the workers of `former` have finished what they had in flight."""
        self._wait(lambda: not (self.workers() & former), "the end of the old workers", within_s)

    def stop(self) -> int:
        """SIGQUIT: what is in flight is finished."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def kill(self) -> None:
        """SIGKILL for master and workers."""
        kill_family(self.process)

    @property
    def output(self) -> str:
        """What it wrote to its terminal: what is wrong with a configuration stands there."""
        return self._output.read_text("utf-8", errors="replace")

    def __enter__(self) -> Nginx:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _wait_started(self) -> None:
        self._wait(lambda: bool(self.workers()) and all(map(self._accepts, self.ports)), "a start", READY_WITHIN_S)

    def _accepts(self, port: int | tuple[str, int]) -> bool:
        address = ("127.0.0.1", port) if isinstance(port, int) else port
        if self.netns:  # workers listen as soon as they exist; only the namespace's own processes could look
            return True
        try:
            socket.create_connection(address, timeout=2).close()
        except OSError:
            return False
        return True

    def _wait(self, condition: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, f"nginx ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"no {what} within {within_s} s:\n{self.output}"
            time.sleep(0.02)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and its children. It is stopped first: a master would replace a child that it sees die."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        for pid in (*_children(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _serves(pid: int) -> bool:
    """Whether this worker takes requests: it exists and is not shutting down."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").endswith(b"worker process")
    except OSError:
        return False


def _children(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()
