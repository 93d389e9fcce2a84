"""The daemon as a real process, with the echoing engine: how it starts, says that it is ready, reloads, and goes."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.ports import free_port

ROOT = Path(__file__).parents[1]
WITHIN_S = 60.0
#: Held up by this until the gate file is there, the engine process loads for as long as a test wants.
HOLD_THE_ENGINE = """
import os, sys, time
if "nllbd.engine.worker" in sys.orig_argv:
    while not os.path.exists(os.environ["TEST_GATE"]):
        time.sleep(0.01)
"""


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for something that another process brings about."""
    end = time.monotonic() + WITHIN_S
    while not (found := condition()):
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)
    return found


class Served:
    """`nllbd serve` with a fake engine. `inherit`: listening sockets to hand over, by name."""

    def __init__(
        self, folder: Path, *flags: str, inherit: dict[str, socket.socket] | None = None, **environ: str
    ) -> None:
        self.log_path = folder / f"log-{time.monotonic_ns()}"
        base = {k: v for k, v in os.environ.items() if not k.startswith(("NLLBD_", "LISTEN_", "NOTIFY_"))}
        command = [
            sys.executable,
            "-m",
            "nllbd",
            "serve",
            "--runner",
            "fake",
            "--metrics-port",
            "0",
            "--cache-ttl-s",
            "0",
            *flags,
        ]  # last wins
        sockets = inherit or {}
        fds = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100) for sock in sockets.values()]
        if sockets:
            moves = "; ".join(f"exec {3 + index}<&{fd}" for index, fd in enumerate(fds))
            command = ["bash", "-c", f'{moves}; export LISTEN_PID=$$; exec "$@"', "-", *command]
            environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)}
        else:
            command += [] if "--port" in flags or "--host" in flags else ["--port", "0"]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
                env={**base, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environ},
                cwd=folder,
            )
        for fd in fds:
            os.close(fd)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == name]

    def wait_event(self, name: str) -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            assert self.process.poll() is None or self.events(name), f"the daemon ended:\n{self.log}"
            return self.events(name)

        return until(look, f"event {name!r}; log:\n{self.log}")[-1]

    def wait_ready(self) -> int:
        """The port, once the ready line is there."""
        url = str(self.wait_event("ready")["url"])
        return int(url.rpartition(":")[2]) if url.startswith("http") else 0

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WITHIN_S)

    def engine(self) -> psutil.Process:
        children = until(lambda: psutil.Process(self.process.pid).children(), "an engine process")
        return children[0]


class Client(http.client.HTTPConnection):
    """One kept-alive connection."""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        self.send_only(method, path, body)
        return self.receive()

    def send_only(self, method: str, path: str, body: Any = None) -> None:
        self.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})

    def receive(self) -> tuple[int, Any, dict[str, str]]:
        answer = self.getresponse()
        return answer.status, json.loads(answer.read()), {k.lower(): v for k, v in answer.getheaders()}


def job(text: str = "Hello there.") -> dict[str, str]:
    return {"text": text, "source_lang": "eng_Latn", "target_lang": "fra_Latn"}


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[Served] = []

    def start(*flags: str, **options: Any) -> Served:
        started.append(Served(tmp_path, *flags, **options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()


@pytest.fixture
def connect() -> Iterator[Callable[[int], Client]]:
    opened: list[Client] = []

    def open_one(port: int) -> Client:
        opened.append(Client("127.0.0.1", port, timeout=WITHIN_S))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def held_engine(tmp_path: Path) -> dict[str, str]:
    """Environment under which the engine loads until `tmp_path/gate` exists."""
    (tmp_path / "sitecustomize.py").write_text(HOLD_THE_ENGINE)
    return {"PYTHONPATH": f"{ROOT}:{tmp_path}", "TEST_GATE": str(tmp_path / "gate")}


def test_serves_says_so_and_leaves_with_code_0(serve: Serve, connect: Callable[[int], Client]) -> None:
    served = serve()
    port = served.wait_ready()
    ready = served.wait_event("ready")
    assert ready["model"] == "demo"
    assert ready["device"] == "fake"
    client = connect(port)
    status, answer, _ = client.ask("POST", "/translate", job())
    assert status == 200
    assert answer["translated_text"] == "Hello there."
    assert client.ask("GET", "/health")[1]["status"] == "ok"
    engine = served.engine()
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "libtorch" not in maps, "the daemon's own process loaded torch"
    served.signal()
    assert served.wait() == 0
    assert not engine.is_running()


def test_own_socket_before_ready_answers_alive_and_nothing_else(
    serve: Serve, connect: Callable[[int], Client], held_engine: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    served = serve("--port", str(port), **held_engine)

    def livez() -> int:
        assert served.process.poll() is None, served.log
        with contextlib.suppress(OSError):
            return connect(port).ask("GET", "/livez")[0]
        return 0

    assert until(livez, "an answer on /livez") == 200
    for method, path in (("GET", "/health"), ("GET", "/readyz"), ("POST", "/translate"), ("GET", "/languages")):
        status, answer, headers = connect(port).ask(method, path, job() if method == "POST" else None)
        assert status == 503, path
        assert headers["x-nllbd-retryable"] == "1"
        assert answer["status"] == "loading" if path == "/health" else answer["error"]["code"] == "not_ready"
    (tmp_path / "gate").touch()
    assert served.wait_ready() == port
    assert connect(port).ask("POST", "/translate", job())[0] == 200


def test_inherited_socket_lets_connections_wait_until_ready(
    serve: Serve, connect: Callable[[int], Client], held_engine: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        early = connect(listening.getsockname()[1])
        early.send_only("POST", "/translate", job())
        served = serve(inherit={"http": listening}, **held_engine)
        served.engine()
        early.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            early.sock.recv(1, socket.MSG_PEEK)
        early.sock.settimeout(WITHIN_S)
        (tmp_path / "gate").touch()
        served.wait_ready()
        assert early.receive()[0] == 200
        served.signal()
        assert served.wait() == 0
        connect(listening.getsockname()[1]).connect()  # its backlog is there for a successor


def test_a_stop_while_loading_is_obeyed_at_once(serve: Serve, held_engine: dict[str, str]) -> None:
    served = serve(**held_engine)
    engine = served.engine()
    served.signal()
    assert served.wait() == 0
    assert not engine.is_running()


@pytest.fixture
def busy_flags() -> list[str]:
    """An engine that takes 120 ms a token, and a metrics port to see it work by."""
    return ["--runner", "fake:step_ms=120", "--metrics-port", str(free_port())]


LONG = "This sentence takes the engine a good while to echo, word by word and piece by piece."


def test_drain_finishes_what_is_in_flight_and_refuses_the_rest(
    serve: Serve, connect: Callable[[int], Client], busy_flags: list[str]
) -> None:
    served = serve(*busy_flags)
    port = served.wait_ready()
    busy, kept, fresh = connect(port), connect(port), connect(port)
    assert kept.ask("GET", "/livez")[0] == 200
    fresh.connect()
    busy.send_only("POST", "/translate", job(LONG))
    until(lambda: _num_running(busy_flags), "the request in the engine")
    assert kept.ask("GET", "/livez")[0] == 200
    served.signal()
    served.wait_event("draining")
    status, answer, headers = kept.ask("POST", "/translate", job())
    assert (status, answer["error"]["code"], headers["x-nllbd-retryable"]) == (503, "draining", "1")
    assert headers["connection"] == "close"
    status, answer, headers = fresh.ask("POST", "/translate", job("In time."))
    assert (status, answer.get("translated_text"), headers["connection"]) == (200, "In time.", "close")
    with pytest.raises(OSError, match="refused"):
        connect(port).connect()
    status, answer, headers = busy.receive()
    assert (status, answer["translated_text"], headers["connection"]) == (200, LONG, "close")
    assert served.wait() == 0
    assert not served.events("stopped with requests in flight")


def test_drain_of_an_inherited_socket_answers_kept_connections_once_more(
    serve: Serve, connect: Callable[[int], Client], busy_flags: list[str]
) -> None:
    """Nobody else may be there to take what is refused, and the client has not been told to go."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = serve(*busy_flags, inherit={"http": listening})
        served.wait_ready()
        port = listening.getsockname()[1]
        busy, kept, late = connect(port), connect(port), connect(port)
        assert kept.ask("GET", "/livez")[0] == 200
        busy.send_only("POST", "/translate", job(LONG))
        until(lambda: _num_running(busy_flags), "the request in the engine")
        served.signal()
        served.wait_event("draining")
        late.send_only("POST", "/translate", job("For the next one."))
        status, answer, headers = kept.ask("POST", "/translate", job("In time."))
        assert (status, answer.get("translated_text"), headers["connection"]) == (200, "In time.", "close")
        assert busy.receive()[0] == 200
        assert served.wait() == 0
        serve(*busy_flags, inherit={"http": listening}).wait_ready()
        assert late.receive()[:2][0] == 200


def test_a_second_signal_ends_it_at_once(serve: Serve, connect: Callable[[int], Client], busy_flags: list[str]) -> None:
    served = serve(*busy_flags, "--runner", "fake:step_ms=5000", "--drain-timeout-s", "50")
    client = connect(served.wait_ready())
    client.send_only("POST", "/translate", job())
    until(lambda: _num_running(busy_flags), "the request in the engine")
    engine = served.engine()
    served.signal()
    served.wait_event("draining")
    began = time.monotonic()
    served.signal(signal.SIGINT)
    assert served.wait() == 0
    assert time.monotonic() - began < 20, "it waited for the request"
    assert served.events("stopped with requests in flight")[0]["cut"] == 1
    assert not engine.is_running()


def test_drain_ends_when_its_time_is_up(serve: Serve, connect: Callable[[int], Client], busy_flags: list[str]) -> None:
    served = serve(*busy_flags, "--runner", "fake:step_ms=5000", "--drain-timeout-s", "0.3")
    client = connect(served.wait_ready())
    client.send_only("POST", "/translate", job())
    until(lambda: _num_running(busy_flags), "the request in the engine")
    began = time.monotonic()
    served.signal()
    assert served.wait() == 0
    assert time.monotonic() - began < 20
    assert served.events("stopped with requests in flight")


def test_a_taken_port_is_said_at_once(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = serve("--port", str(port))
        assert served.wait() == 2
    assert f"port {port} of 127.0.0.1 is taken" in served.log


def test_a_taken_metrics_port_too(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = serve("--metrics-port", str(taken.getsockname()[1]))
        assert served.wait() == 2
    assert "metrics_port" in served.log


def test_strangers_need_credentials_also_through_an_inherited_socket(
    serve: Serve, connect: Callable[[int], Client]
) -> None:
    refused = serve("--host", "0.0.0.0", "--port", "0")
    assert refused.wait() == 2
    assert "allow_anonymous" in refused.log
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        handed = serve(inherit={"http": open_to_all})
        assert handed.wait() == 2
        assert "no credentials" in handed.log
        with_key = serve(inherit={"http": open_to_all}, API_KEY="sesame-sesame-sesame")
        with_key.wait_ready()
        client = connect(open_to_all.getsockname()[1])
        assert client.ask("POST", "/translate", job())[0] == 401
    assert serve("--host", "0.0.0.0", "--port", "0", "--allow-anonymous", "true").wait_ready()


def test_stored_keys_let_it_listen_in_public_and_are_asked_for(
    serve: Serve, connect: Callable[[int], Client], tmp_path: Path
) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {"HOME": str(tmp_path)}
    create = [sys.executable, "-m", "nllbd", "keys", "create", "tester"]
    created = subprocess.run(create, env=environ, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (key,) = (word for word in created.split() if word.startswith("nllbd_"))
    port = serve("--host", "0.0.0.0", "--port", "0").wait_ready()
    client = connect(port)
    assert client.ask("POST", "/translate", job())[0] == 401
    client.request("POST", "/translate", json.dumps(job()), {"X-API-Key": key})
    assert client.receive()[0] == 200


def test_sighup_takes_over_keys_limits_and_origins_or_nothing(
    serve: Serve, connect: Callable[[int], Client], tmp_path: Path
) -> None:
    config = tmp_path / "nllbd.toml"
    config.write_text('api_key = "old-key"\n')
    served = serve("--config", str(config))
    client = connect(served.wait_ready())

    def ask(key: str) -> tuple[int, dict[str, str]]:
        headers = {"X-API-Key": key, "Origin": "https://app.example"}
        client.request("POST", "/translate", json.dumps(job()), headers)
        status, _, answered = client.receive()
        return status, answered

    status, headers = ask("old-key")
    assert status == 200
    assert not {"ratelimit", "access-control-allow-origin"} & headers.keys()
    fresh = 'api_key = "new-key"\nrate_limit_per_minute = 1\nrate_limit_burst = 1\n'
    config.write_text(fresh + 'cors_origins = ["https://app.example"]\n')
    served.signal(signal.SIGHUP)
    assert served.wait_event("settings reloaded")["need_restart"] == []
    assert ask("old-key")[0] == 401
    status, headers = ask("new-key")
    assert (status, headers["ratelimit-policy"]) == (200, '"default";q=1;w=60')
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert ask("new-key")[0] == 429
    config.write_text(f'api_key = "third-key"\njwt_jwks_file = "{config}"\n')
    served.signal(signal.SIGHUP)
    assert "JSON Web Key Set" in served.wait_event("settings not reloaded")["reason"]
    assert ask("third-key")[0] == 401
    assert ask("new-key")[0] == 429


def test_a_model_that_is_not_there_ends_it_with_code_1(serve: Serve, tmp_path: Path) -> None:
    served = serve("--runner", "model", "--model", str(tmp_path / "no-such-model"))
    assert served.wait() == 1
    assert "no-such-model" in served.log


def test_an_engine_that_refuses_its_settings_ends_it_with_its_reason(serve: Serve) -> None:
    served = serve("--runner", "fake:wings=2")
    assert served.wait() == 2
    assert "unknown 'wings'" in served.log


def test_one_lane_serves_and_a_cache_too_small_is_refused_with_the_least(
    serve: Serve, connect: Callable[[int], Client]
) -> None:
    served = serve("--max-num-lanes", "1")
    client = connect(served.wait_ready())
    assert client.ask("POST", "/translate", job())[0] == 200
    status, answer, _ = client.ask("POST", "/translate", {**job(), "num_beams": 2})
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (400, "invalid_value", "num_beams")
    assert sum("beams" in line["note"] for line in served.events("settings")) == 1
    refused = serve("--runner", "model", "--kv-cache-bytes", "1MiB")
    assert refused.wait() == 2
    assert "give at least" in refused.log


def test_listens_on_a_unix_socket_and_clears_it_away(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    served = serve("--host", f"unix:{path}")
    served.wait_ready()
    client = Client("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(str(path))
    assert client.ask("POST", "/translate", job())[0] == 200
    second = serve("--host", f"unix:{path}")
    assert second.wait() == 2
    assert "taken" in second.log
    client.close()
    served.signal()
    assert served.wait() == 0
    assert not path.exists()


def test_an_inherited_unix_socket_is_left_to_its_owner(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as peer:
        listening.bind(str(path))
        listening.listen()
        served = serve(inherit={"http": listening})
        served.wait_ready()
        served.signal()
        assert served.wait() == 0
        peer.connect(str(path))


def test_inherits_metrics_by_name(serve: Serve, connect: Callable[[int], Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        serve(inherit={"metrics": first, "http": second}).wait_ready()
        assert "nllbd_num_sequences_running" in _scrape(first.getsockname()[1])
        assert connect(second.getsockname()[1]).ask("GET", "/health")[0] == 200


def test_tells_systemd(serve: Serve, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WITHIN_S)
        served = serve(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")

        def hear(word: str) -> str:
            while word not in (heard := manager.recv(4096).decode()):
                pass
            return heard

        hear("EXTEND_TIMEOUT_USEC=")
        assert "STATUS=serving demo on http://127.0.0.1:" in hear("READY=1")
        hear("WATCHDOG=1")
        served.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in hear("RELOADING=1")
        hear("READY=1")
        served.signal()
        hear("STOPPING=1")
        assert served.wait() == 0


def test_sighup_applies_what_can_change_live_and_names_the_rest(
    serve: Serve, connect: Callable[[int], Client], tmp_path: Path
) -> None:
    config = tmp_path / "nllbd.toml"
    config.write_text("max_texts = 3\n")
    served = serve("--config", str(config))
    client = connect(served.wait_ready())
    two = {**job(), "text": ["a", "b"]}
    assert client.ask("POST", "/translate", two)[0] == 200
    config.write_text("max_texts = 1\nmax_num_beams = 5\n")
    served.signal(signal.SIGHUP)
    assert served.wait_event("settings reloaded")["need_restart"] == ["max_num_beams"]
    assert client.ask("POST", "/translate", two)[0] == 413
    config.write_text("max_texts = many\n")
    served.signal(signal.SIGHUP)
    served.wait_event("settings not reloaded")
    assert client.ask("POST", "/translate", two)[0] == 413
    assert client.ask("POST", "/translate", job())[0] == 200


def test_a_person_at_a_terminal_gets_a_command_that_works(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nllbd", "serve", "--runner", "fake", "--port", "0", "--metrics-port", "0"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"try: " not in seen or not seen.endswith(b"\n"):
            seen += os.read(ours, 4096)
        text = seen.decode().replace("\r\n", "\n")
        command = re.search(r"try: (.*)", text)
        assert re.search(r"is ready at http://127\.0\.0\.1:\d+ after", text)
        assert "model demo, fake" in text
        assert command is not None
        done = subprocess.run(["bash", "-c", command[1]], capture_output=True, check=True, timeout=WITHIN_S)
        assert json.loads(done.stdout)["translated_text"] == "Good morning."
        process.send_signal(signal.SIGINT)
        threading.Thread(target=_drink, args=(ours,), daemon=True).start()
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()


def _drink(fd: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(fd, 4096):
            pass


def _scrape(port: int) -> str:
    client = Client("127.0.0.1", port, timeout=WITHIN_S)
    client.request("GET", "/metrics")
    try:
        return client.getresponse().read().decode()
    finally:
        client.close()


def _num_running(flags: list[str]) -> int:
    found = re.search(r"^nllbd_num_sequences_running(?:\{.*\})? (\S+)", _scrape(int(flags[3])), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))
