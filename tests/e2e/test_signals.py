"""Signals at the wrong moment, and a log that nobody reads: neither ends the daemon before its time nor keeps it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, StartDaemon, _spawn, _wait_ready

WITHIN_S = 60.0


def catches(daemon: Daemon, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)


def test_a_reload_that_comes_too_early_ends_nothing(start_daemon: StartDaemon) -> None:
    """From the moment on from which SIGTERM ends the process in order, others do not end it at all."""
    daemon = start_daemon(wait=False, runner="fake")
    wait_until(lambda: catches(daemon, signal.SIGTERM), "no handler")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        daemon.process.send_signal(number)
    _wait_ready(daemon)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        daemon.process.send_signal(number)
    wait_until(lambda: "settings reloaded" in daemon.log, daemon.log)
    assert daemon.translate("Hello.", "en", "fr").status == 200
    daemon.process.send_signal(signal.SIGTERM)
    while daemon.process.poll() is None:  # until the very end
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    assert daemon.process.returncode == 0


@pytest.fixture
def pipe() -> tuple[int, int]:
    """A pipe with room for a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


def test_a_log_reader_that_has_stalled_keeps_nobody(
    pipe: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    popen = subprocess.Popen

    def into_the_pipe(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen(command, **{**options, "stdout": writer, "stderr": writer})  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", into_the_pipe)
    daemon = _spawn(tmp_path, {"runner": "fake", "log_format": "json"})
    try:
        _wait_ready(daemon)
        for number in range(40):  # some 300 bytes of log each
            assert daemon.translate(f"Hello {number}.", "en", "fr").status == 200
        assert "nllbd_log_dropped_lines_total 0" in daemon.get_metrics()
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(WITHIN_S) == 0
        assert time.monotonic() - began < 10
    finally:
        daemon.process.kill()
        daemon.process.wait()
        os.close(writer)
    with os.fdopen(reader, "rb") as file:
        first = file.readline()
    assert json.loads(first)["level"] in ("info", "warning")
