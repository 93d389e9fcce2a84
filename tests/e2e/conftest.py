"""A real `nllbd serve` process for end-to-end tests: one for the whole session, or a test's own through a factory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port

READY_WITHIN_S = 90.0  # a loaded 2-core machine; start-up itself takes a few seconds


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `json` is the decoded body, or None when it is not JSON."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Daemon:
    """A running `nllbd serve`, its addresses and its log (standard output and error together)."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def request(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0, **headers: str) -> Answer:
        """One request on a connection of its own. `body`: bytes as they are, anything else as JSON."""
        return self._request(self.port, method, path, body, timeout_s, headers)

    def get_metrics(self) -> str:
        return self._request(self.metrics_port, "GET", "/metrics", None, 10.0, {}).body.decode()

    def translate(self, text: str | list[str], source: str, target: str, **more: Any) -> Answer:
        return self.request("POST", "/translate", {"text": text, "source_lang": source, "target_lang": target, **more})

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, then the exit code; kills what does not end in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop within {timeout_s} s; its log:\n{self.log}") from None

    @staticmethod
    def _request(port: int, method: str, path: str, body: Any, timeout_s: float, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if content is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


StartDaemon = Callable[..., Daemon]


def _spawn(folder: Path, settings: dict[str, Any]) -> Daemon:
    port, metrics_port = free_port(), free_port()
    # Without the cache: every test means the engine, unless it says otherwise.
    flags = {"port": port, "metrics_port": metrics_port, "num_threads": 2, "cache_ttl_s": 0, **settings}
    command = [sys.executable, "-m", "nllbd", "serve"]
    for name, value in flags.items():
        if value is None:  # not given at all
            continue
        command += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
    log_path = folder / f"daemon-{port}.log"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {"HOME": str(folder)}
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ, cwd=folder)
    return Daemon(process, int(flags["port"]), int(flags["metrics_port"]), log_path)


def _wait_ready(daemon: Daemon) -> None:
    """Poll /health: that is the condition; the pause between polls only spares the processor."""
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        if daemon.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {daemon.process.returncode} at start:\n{daemon.log}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if daemon.request("GET", "/health", timeout_s=5.0).status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the daemon was not ready within {READY_WITHIN_S} s:\n{daemon.log}")


@pytest.fixture(scope="session")
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Factory: `start_daemon(dtype="float32", wait=True)` gives a ready daemon; all are ended with the session.

    Settings are those of the command line, by name. `wait=False` returns at once, before the daemon listens.
    """
    started: list[Daemon] = []

    def start(*, wait: bool = True, **settings: Any) -> Daemon:
        daemon = _spawn(tmp_path_factory.mktemp("daemon"), settings)
        started.append(daemon)
        if wait:
            _wait_ready(daemon)
        return daemon

    yield start
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture(scope="session")
def daemon(start_daemon: StartDaemon) -> Daemon:
    """The session's daemon: demo model, float32, on free ports. Tests must leave it as they found it."""
    return start_daemon(dtype="float32")
