from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nllbd.checkpoint import DEMO_FOLDER
from nllbd.cli import main
from nllbd.commands import doctor, doctor_services
from nllbd.commands.doctor import CHECKS, Finding
from nllbd.config import Settings


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_line_each_and_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = Finding("ok", "sun", "shines"), Finding("warn", "rain", "falls", "take an umbrella")
    monkeypatch.setattr(doctor, "CHECKS", (lambda _: good, lambda _: poor))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ok    sun       shines", "warn  rain      falls: take an umbrella"]
    monkeypatch.setattr(doctor, "CHECKS", (lambda _: Finding("fail", "sky", "falls", "run"), lambda _: good))
    assert main(["doctor"]) == 1


def test_this_machine_passes() -> None:
    settings = Settings(port=0, metrics_port=0)
    assert [str(it) for it in (check(settings) for check in CHECKS) if it.verdict == "fail"] == []


def test_model(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(DEMO_FOLDER, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    finding = doctor.check_model(Settings(model=str(broken)))
    assert (finding.verdict, "cut short" in finding.seen) == ("fail", True)
    assert doctor.check_model(Settings(model="/nowhere")).verdict == "fail"


@pytest.mark.parametrize(
    ("wanted", "gpus", "verdict", "seen"),
    [
        ("auto", [], "ok", "CPU"),
        ("cpu", ["H200"], "ok", "CPU"),
        ("auto", ["H200"], "ok", "H200"),
        ("cuda:1", ["A", "B"], "ok", "B"),
        ("cuda", [], "fail", "no CUDA device"),
        ("cuda:2", ["A", "B"], "fail", "2 CUDA device(s)"),
    ],
)
def test_device(wanted: str, gpus: list[str], verdict: str, seen: str) -> None:
    finding = doctor._device_finding(wanted, "2.13.0", gpus)
    assert finding.verdict == verdict
    assert seen in finding.seen


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ASK_TORCH", "import a_torch_that_is_not_there")
    finding = doctor.check_device(Settings())
    assert finding.verdict == "fail"
    assert "No module named 'a_torch_that_is_not_there'" in finding.seen


def test_ports(taken_port: int, tmp_path: Path) -> None:
    assert doctor.check_port(Settings(port=0)).verdict == "ok"
    assert doctor.check_port(Settings(port=taken_port)).verdict == "warn"
    assert doctor.check_port(Settings(host="192.0.2.1", port=0)).verdict == "fail"
    assert doctor.check_port(Settings(host=f"unix:{tmp_path}/n.sock")).verdict == "ok"
    assert doctor.check_port(Settings(host="unix:/nowhere/n.sock")).verdict == "fail"
    assert doctor.check_metrics_port(Settings(metrics_port=0)).verdict == "ok"
    assert doctor.check_metrics_port(Settings(metrics_port=taken_port)).verdict == "warn"


@pytest.mark.parametrize(
    ("options", "verdict", "seen"),
    [
        ({"maxmemory": "64mb", "maxmemory_policy": "allkeys-lru"}, "ok", "64.0 MiB, allkeys-lru"),
        ({"maxmemory": "64mb", "maxmemory_policy": "noeviction"}, "warn", "noeviction"),
        ({}, "warn", "without a bound"),
    ],
)
def test_redis(start_redis: Any, options: dict[str, str], verdict: str, seen: str) -> None:
    finding = doctor.check_redis(Settings(redis_url=start_redis(requirepass="hunter2", **options).url))
    assert finding.verdict == verdict
    assert seen in finding.seen
    assert "hunter2" not in str(finding)


def test_redis_that_does_not_let_us_in(start_redis: Any) -> None:
    url = start_redis(requirepass="hunter2").url
    for wrong in (url.replace("hunter2", "hunter3"), url.replace(":hunter2@", "")):
        finding = doctor.check_redis(Settings(redis_url=wrong))
        assert finding.verdict == "warn"
        assert "Authentication" in finding.seen
        assert "hunter" not in str(finding)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad\r\n", b"-ERR no\r\n", b"$5\r\nhello\r\n", b""])
def test_what_is_not_redis(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer_once, args=(server, answer))
        thread.start()
        finding = doctor.check_redis(Settings(redis_url=f"redis://:hunter2@127.0.0.1:{server.getsockname()[1]}/0"))
        thread.join()
    assert finding.verdict == "warn"
    assert "hunter2" not in str(finding)


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(64)
        connection.sendall(answer)


def test_redis_that_is_away(tmp_path: Path) -> None:
    assert doctor.check_redis(Settings(redis_url=f"unix://{tmp_path}/gone.sock")).verdict == "warn"
    assert doctor.check_redis(Settings()).verdict == "ok"


@pytest.mark.parametrize(("policy", "verdict"), [("noeviction", "ok"), ("allkeys-lru", "warn")])
def test_redis_of_rate_limits(start_redis: Any, policy: str, verdict: str) -> None:
    url = start_redis(requirepass="hunter2", maxmemory="64mb", maxmemory_policy=policy).url
    finding = doctor.check_rates(Settings(rate_limit_redis_url=url))
    assert (finding.verdict, policy in finding.seen) == (verdict, True)
    assert "hunter2" not in str(finding)


def test_redis_of_rate_limits_that_is_away_or_none(tmp_path: Path) -> None:
    finding = doctor.check_rates(Settings(rate_limit_redis_url=f"unix://{tmp_path}/gone.sock"))
    assert (finding.verdict, "rate_limit_redis_url" in finding.advice) == ("warn", True)
    assert doctor.check_rates(Settings()).verdict == "ok"
    assert doctor.check_rates in doctor.CHECKS


def test_a_database_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    path = tmp_path / "nllbd.db"
    assert main(["keys", "create", "ada"]) == 0
    for settings in (Settings(), Settings(database_url=f"sqlite+aiosqlite:///{path}")):
        assert "1 keys in it" in doctor.check_database(settings).seen
    monkeypatch.setattr(doctor_services, "TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert (doctor.check_database(Settings()).verdict) == "fail"
    path.write_bytes(b"no database" * 1000)
    finding = doctor.check_database(Settings())
    assert (finding.verdict, "not a database" in finding.seen, "503" in finding.advice) == ("fail", True, True)


def test_database(taken_port: int, tmp_path: Path) -> None:
    assert doctor.check_database(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/n.db")).verdict == "ok"
    url = "postgresql+asyncpg://nllbd:hunter2@127.0.0.1"
    assert doctor.check_database(Settings(database_url=f"{url}:{taken_port}/nllbd")).verdict == "ok"
    finding = doctor.check_database(Settings(database_url=f"{url}:1/nllbd"))
    assert finding.verdict == "fail"
    assert "hunter2" not in str(finding)


def test_a_full_disk_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MIN_FREE_DISK", 1 << 60)
    assert doctor.check_disk(Settings()).verdict == "warn"
    monkeypatch.setattr(doctor.cgroup, "available_memory", lambda: 1 << 20)
    assert doctor.check_memory(Settings()).verdict == "warn"


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (256, 1024))
    finding = doctor.check_limits(Settings())
    assert (finding.verdict, finding.advice) == ("warn", "ulimit -n 1024")
