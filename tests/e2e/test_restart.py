"""Restarts that fail nobody: daemons follow each other on one inherited socket while clients never stop asking."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 90.0
NUM_CLIENTS = 8


class Clients:
    """Threads that ask without pause, each request on a new connection; everything but a right answer is a failure."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failures: list[str] = []
        self.num_answers = 0
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(NUM_CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WITHIN_S)

    def wait_for(self, more: int) -> None:
        """Return after `more` further answers."""
        wanted, end = self.num_answers + more, time.monotonic() + WITHIN_S
        while self.num_answers < wanted:
            assert time.monotonic() < end, f"the clients are stuck; failures: {self.failures[:3]}"
            time.sleep(0.005)

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            text = f"Client {number} asks for the {count}th time."
            try:
                failure = self._ask(text)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = repr(error)
            with self._counting:
                self.num_answers += 1
                if failure:
                    self.failures.append(failure)

    def _ask(self, text: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        body = json.dumps({"text": text, "source_lang": "eng_Latn", "target_lang": "deu_Latn"})
        with contextlib.closing(connection):
            connection.request("POST", "/translate", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
        if answer.status != 200 or content["translated_text"] != text:
            return f"{answer.status}: {content}"
        return ""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        yield sock


class Daemons:
    """Starts daemons on one socket and ends with none."""

    def __init__(self, listening: socket.socket, folder: Path) -> None:
        self._listening = listening
        self._folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        fd = fcntl.fcntl(self._listening.fileno(), fcntl.F_DUPFD, 100)
        serve = "-m nllbd serve --runner fake:step_ms=2 --metrics-port 0 --cache-ttl-s 0 --drain-timeout-s 60"
        script = f'exec 3<&{fd}; export LISTEN_PID=$$; exec "$0" {serve}'
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")}
        environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "PYTHONPATH": str(ROOT), "HOME": str(self._folder)}
        with (self._folder / f"log-{len(self.started)}").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", script, sys.executable], pass_fds=[fd], env=environ, stdout=log, stderr=log
            )
        os.close(fd)
        self.started.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(file.read_text()[-3000:] for file in sorted(self._folder.glob("log-*")))


@pytest.fixture
def daemons(listening: socket.socket, tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(listening, tmp_path)
    yield daemons
    for process in daemons.started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_restarts_under_load_fail_nobody(daemons: Daemons, listening: socket.socket) -> None:
    current = daemons.start()
    with Clients(listening.getsockname()[1]) as clients:
        clients.wait_for(20)
        for _ in range(3):
            current.send_signal(signal.SIGTERM)
            assert current.wait(WITHIN_S) == 0, daemons.logs()
            current = daemons.start()
            clients.wait_for(40)
    assert clients.failures == [], daemons.logs()


def test_a_successor_may_start_before_its_predecessor_is_gone(daemons: Daemons, listening: socket.socket) -> None:
    current = daemons.start()
    with Clients(listening.getsockname()[1]) as clients:
        clients.wait_for(20)
        for _ in range(2):
            successor = daemons.start()
            clients.wait_for(40)
            current.send_signal(signal.SIGTERM)
            clients.wait_for(40)
            assert current.wait(WITHIN_S) == 0, daemons.logs()
            current = successor
    assert clients.failures == [], daemons.logs()


def test_killing_the_engine_under_load_fails_nobody(daemons: Daemons, listening: socket.socket) -> None:
    daemon = psutil.Process(daemons.start().pid)
    with Clients(listening.getsockname()[1]) as clients:
        for fault in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
            clients.wait_for(40)
            (engine,) = daemon.children()
            engine.send_signal(fault)
            clients.wait_for(1)
            engine.wait(WITHIN_S)
        clients.wait_for(40)
    assert clients.failures == [], daemons.logs()


def test_faults_of_the_real_engine_change_no_answer(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(dtype="float32")
    held_out = json.loads((ROOT / "nllbd" / "demo" / "held_out.json").read_text(encoding="utf-8"))
    texts = [texts[0] for _, texts in held_out[:40]]
    wanted = daemon.translate(texts, "eng_Latn", "fra_Latn").json["translations"]
    for fault in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
        (engine,) = psutil.Process(daemon.process.pid).children()
        with ThreadPoolExecutor(4) as pool:
            parts = [pool.submit(daemon.translate, texts[n::4], "eng_Latn", "fra_Latn") for n in range(4)]
            busy_until(engine)
            engine.send_signal(fault)
            answers = [part.result() for part in parts]
        assert [answer.status for answer in answers] == [200] * 4, daemon.log
        assert [answer.json["translations"] for answer in answers] == [wanted[n::4] for n in range(4)]
        assert not engine.is_running()
    assert daemon.stop() == 0


def busy_until(engine: psutil.Process, cpu_s: float = 0.05) -> None:
    """Return once the engine has worked for a moment."""
    begun, end = sum(engine.cpu_times()[:2]), time.monotonic() + WITHIN_S
    while sum(engine.cpu_times()[:2]) < begun + cpu_s:
        assert time.monotonic() < end, "the engine does nothing"
        time.sleep(0.002)
