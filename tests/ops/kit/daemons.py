"""A real `nllbd serve` outside systemd, for tests of what stands around it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

READY_WITHIN_S = 90.0  # a loaded 2-core machine; start-up itself takes a few seconds
STOP_WITHIN_S = 60.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """`nllbd serve` on free ports, ready when the constructor returns (unless `wait=False`).

    Settings are those of the command line by name; None leaves one out. Without any it echoes (`runner="fake"`), which
    starts fast; `runner="model"` serves the demonstration model. A context manager: ends the process.

        with Daemon(runner="model", num_threads=1) as daemon: ... daemon.url

    Attributes:
        netns: name of the network namespace it runs in (`ip netns`), None for ours. `host` says where it listens then.
        folder: its home, with its state and `log`; made below the temporary folder unless given.
    """

    def __init__(
        self, *, folder: Path | None = None, netns: str | None = None, wait: bool = True, **settings: Any
    ) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="nllbd-daemon-")
        self.folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self.netns = netns
        defaults: dict[str, Any] = {"host": "127.0.0.1", "runner": "fake", "num_threads": 1, "cache_ttl_s": 0}
        defaults |= {"port": free_port(), "metrics_port": free_port()}
        self.settings = {name: value for name, value in (defaults | settings).items() if value is not None}
        self.port, self.metrics_port = int(self.settings["port"]), int(self.settings["metrics_port"])
        self._log_path = self.folder / f"daemon-{self.port}.log"
        self.process = self._spawn()
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise

    @property
    def address(self) -> str:
        """HOST:PORT, as an nginx upstream names it."""
        return f"{self.settings['host']}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.settings.get('metrics_host', '127.0.0.1')}:{self.metrics_port}/metrics"

    @property
    def log(self) -> str:
        """What it has written to standard output and error so far."""
        return self._log_path.read_text("utf-8", errors="replace")

    def log_records(self) -> list[dict[str, Any]]:
        """Its log's JSON lines."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]

    def get(self, path: str, timeout_s: float = 10.0) -> tuple[int, str]:
        """Status and body of a GET on its own port (not within a namespace)."""
        return _get(self.settings["host"], self.port, path, timeout_s)

    def metrics(self) -> str:
        """The text of its metrics port."""
        return _get(self.settings.get("metrics_host", "127.0.0.1"), self.metrics_port, "/metrics", 10.0)[1]

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return when /health says 200; raise with its log when it ends before, or takes too long."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode} at start:\n{self.log}")
            if self._is_healthy():
                return
            time.sleep(0.05)
        raise AssertionError(f"the daemon was not ready within {within_s} s:\n{self.log}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, within_s: float = STOP_WITHIN_S) -> int:
        """SIGTERM, and the exit code once it has drained; kills what does not end in time, which is an error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the daemon did not stop within {within_s} s:\n{self.log}") from None
        return int(self.process.returncode)

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)  # a stopped one would keep its engine waiting
            self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """A new process with the same settings, ports and folder; the old one must have ended."""
        assert self.process.poll() is not None, "it still runs"
        self.process = self._spawn()
        self.wait_ready()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", self.netns] if self.netns else []
        command += [sys.executable, "-m", "nllbd", "serve"]
        for name, value in self.settings.items():
            command += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {"HOME": str(self.folder)}
        with self._log_path.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ, cwd=self.folder)

    def _is_healthy(self) -> bool:
        if self.netns:
            probe = ["ip", "netns", "exec", self.netns, "curl", "-sf", "-m", "5", "-o", "/dev/null"]
            return subprocess.run([*probe, f"{self.url}/health"], check=False).returncode == 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/health", 5.0)[0] == 200
        return False


def _get(host: str, port: int, path: str, timeout_s: float) -> tuple[int, str]:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=timeout_s)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
