"""Keys and usage as their owner sees them: a real daemon, the real command, kill -9, a database that is not there."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Answer, Daemon, StartDaemon

TEXT = "Hello there. How are you?"
REVOKED_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder that daemons and commands share, as those of one host do."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(folder))
        yield folder


@pytest.fixture(scope="module")
def daemon(state: Path, start_daemon: StartDaemon) -> Daemon:
    keys("create", "first")  # from the start on, credentials count
    return start_daemon(runner="fake")


def keys(*arguments: str) -> Any:
    command = [sys.executable, "-m", "nllbd", "keys", *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def translate(daemon: Daemon, key: str, text: str | list[str] = TEXT, **more: Any) -> Answer:
    body = {"text": text, "source_lang": "en", "target_lang": "fr", **more}
    return daemon.request("POST", "/translate", body, X_API_Key=key)


def booked(state: Path, account: str) -> tuple[int, int]:
    """Characters and requests in the database."""
    query = "SELECT coalesce(sum(characters), 0), coalesce(sum(requests), 0) FROM usage WHERE account = ?"
    with closing(sqlite3.connect(state / "nllbd.db", timeout=10)) as connection:
        return tuple(connection.execute(query, (account,)).fetchone())


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> float:
    """Seconds until `condition` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_s, "it did not come true"
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_new_key_works_at_once_and_a_revoked_one_stops(daemon: Daemon, state: Path) -> None:
    made = keys("create", "ada")
    assert translate(daemon, made["key"]).status == 200
    wait_until(lambda: booked(state, made["account"]) == (len(TEXT), 1))
    (shown,) = (it for it in keys("list") if it["name"] == "ada")
    assert shown["characters_this_month"] == len(TEXT)
    keys("revoke", "ada")
    wait_until(lambda: translate(daemon, made["key"]).status == 401, REVOKED_WITHIN_S)


def test_both_keys_work_while_a_rotation_overlaps_on_one_account(daemon: Daemon, state: Path) -> None:
    old = keys("create", "bob")
    new = keys("rotate", "bob", "--overlap", "1h")
    assert [translate(daemon, it["key"]).status for it in (old, new)] == [200, 200]
    wait_until(lambda: booked(state, old["account"]) == (2 * len(TEXT), 2))


def test_the_quota_ends_a_month(daemon: Daemon) -> None:
    made = keys("create", "carol", "--monthly-characters", "10")
    assert translate(daemon, made["key"], "Hello").status == 200
    refused = translate(daemon, made["key"], "Hello!")
    assert (refused.status, refused.json["error"]["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) > 0
    assert translate(daemon, made["key"], "Hello").status == 200
    assert translate(daemon, made["key"], "H").status == 429


def test_a_request_that_fails_costs_nothing(daemon: Daemon, state: Path) -> None:
    made = keys("create", "dave", "--monthly-characters", "100")
    assert translate(daemon, made["key"], "Hello", target_lang="xx_Nope").status == 400
    assert translate(daemon, made["key"], "Hello there. " * 7, timeout_s=0.000001).status == 504
    assert translate(daemon, made["key"], "x" * 100).status == 200
    wait_until(lambda: booked(state, made["account"]) == (100, 1))


def test_a_stream_costs_what_was_sent(daemon: Daemon, state: Path) -> None:
    made = keys("create", "erin")
    assert translate(daemon, made["key"], stream=True).status == 200
    wait_until(lambda: booked(state, made["account"]) == (len(TEXT), 1))


def test_usage_adds_up_after_kill_9(state: Path, daemon: Daemon, start_daemon: StartDaemon) -> None:
    """Two daemons on one host under load; one is killed, another starts in its place."""
    made = keys("create", "frank")
    victim = start_daemon(runner="fake")
    texts = ["x" * length for length in range(1, 61)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: translate(victim, made["key"], text), texts))
        assert {answer.status for answer in answers} == {200}
        assert translate(daemon, made["key"], "y" * 1000).status == 200
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.process.wait()
    successor = start_daemon(runner="fake")
    expected = sum(map(len, texts)) + 1000
    wait_until(lambda: booked(state, made["account"]) == (expected, len(texts) + 1))
    assert translate(successor, made["key"], "z").status == 200
    assert successor.stop() == 0
    assert booked(state, made["account"]) == (expected + 1, len(texts) + 2), "a stop flushes"


def test_without_its_database_the_daemon_serves_its_own_key(
    start_daemon: StartDaemon, tmp_path: Path, state: Path
) -> None:
    """Stored keys are unknown then: 503, for another host may know; and nobody comes in who would not otherwise."""
    key_file = tmp_path / "key"
    key_file.write_text("configured")
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql+asyncpg://nllbd:hunter2@127.0.0.1:{taken.getsockname()[1]}/nllbd"
        daemon = start_daemon(runner="fake", api_key_file=key_file, database_url=url)
        assert translate(daemon, "configured").status == 200
        stored = translate(daemon, f"nllbd_{'a' * 12}_{'b' * 43}")
        assert (stored.status, stored.json["error"]["code"]) == (503, "not_ready")
        assert "retry-after" in stored.headers
        assert translate(daemon, "wrong").status == 401
        assert daemon.request("POST", "/translate", {}).status == 401
        assert daemon.stop() == 0
    assert "hunter2" not in daemon.log
    assert len(list((state / "usage").glob("*/*.usage"))) == 1, "what was used waits in the journal"


def unreadable(daemon: Daemon) -> bool:
    """Whether all is well with the daemon, but for its store."""
    try:
        health = daemon.request("GET", "/health")
    except OSError:
        return False
    return (health.status, health.json["engine"], health.json["store"]) == (503, "ready", "unreadable")


def test_a_damaged_database_opens_no_door(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored keys were the only credentials: while they cannot be read nobody is let in, and 503 says why."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    made = keys("create", "grace")
    good, damaged = (tmp_path / "nllbd.db").read_bytes(), b"no database" * 1000
    (tmp_path / "nllbd.db").write_bytes(damaged)
    daemon = start_daemon(wait=False, runner="fake")
    wait_until(lambda: unreadable(daemon), 90.0)
    assert daemon.request("GET", "/readyz").status == 503
    for headers in ({}, {"X_API_Key": made["key"]}, {"X_API_Key": "any"}):
        answer = daemon.request(
            "POST", "/translate", {"text": TEXT, "source_lang": "en", "target_lang": "fr"}, **headers
        )
        assert (answer.status, answer.json["error"]["code"]) == (503, "not_ready")
    (tmp_path / "nllbd.db").write_bytes(good)
    wait_until(lambda: translate(daemon, made["key"]).status == 200)
    assert daemon.translate(TEXT, "en", "fr").status == 401
    assert [daemon.request("GET", path).status for path in ("/readyz", "/health")] == [200, 200]
    assert daemon.stop() == 0


def test_who_waits_for_a_store_without_keys_is_told(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers can reach it and its store was away at the start, so that nobody knew: once it is read, the log says
    why everybody is refused, and what to do."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    keys("list")
    good = (tmp_path / "nllbd.db").read_bytes()
    (tmp_path / "nllbd.db").write_bytes(b"no database" * 1000)
    daemon = start_daemon(wait=False, runner="fake", host="0.0.0.0")
    wait_until(lambda: unreadable(daemon), 90.0)
    assert "nobody can come in" not in daemon.log
    (tmp_path / "nllbd.db").write_bytes(good)
    wait_until(lambda: "nobody can come in" in daemon.log)
    assert "nllbd keys create" in daemon.log
    assert daemon.translate(TEXT, "en", "fr").status == 401
