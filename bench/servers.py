"""Starting and stopping the servers that a load is put on."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench.ports import free_port

ROOT = Path(__file__).parent.parent
GIVE_UP_S = 300.0


class ServerFailed(Exception):
    """A server ended, or was not ready in time."""


class Server:
    """A server process on a free port, ready when constructed; stopped with SIGTERM. A context manager.

    `command` follows the interpreter (`-m nllbd serve …`); `{port}` in it is replaced. Its log goes to `log`, default
    nowhere.
    """

    def __init__(
        self, label: str, command: Sequence[str], environ: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.label = label
        self.port = free_port()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with (log or Path(os.devnull)).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *(part.format(port=self.port) for part in command)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path, **(environ or {})},
            )
        begin = time.perf_counter()
        try:
            self._wait()
        except ServerFailed:
            self.close()
            raise
        self.ready_s = time.perf_counter() - begin

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rss(self) -> int:
        """Bytes resident, children included."""
        main = psutil.Process(self._process.pid)
        return sum(process.memory_info().rss for process in [main, *main.children(recursive=True)])

    def close(self) -> None:
        """Stop the server and wait for it; kill it where it does not listen."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        end = time.monotonic() + GIVE_UP_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ServerFailed(f"{self.label} ended with exit code {self._process.returncode} before it was ready")
            if _is_ready(self.port):
                return
            time.sleep(0.05)
        raise ServerFailed(f"{self.label} was not ready within {GIVE_UP_S:.0f} s")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does: it stops its servers on the way out."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
