"""A real daemon and a real Redis that is paused, killed, emptied and filled up while requests flow: none may fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WITHIN_S = 60.0


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {WITHIN_S} s"
        time.sleep(0.02)


def figure(daemon: Any, name: str) -> float:
    lines = [line for line in daemon.get_metrics().splitlines() if line.startswith(name + " ")]
    return float(lines[0].split()[-1]) if lines else 0.0


class Traffic:
    """Clients that ask without a pause, for texts of a small stock and for new ones in turns, and check each answer."""

    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.cached = 0

    def run(self, client: int) -> None:
        for number in range(10**9):
            if self._stop.is_set():
                return
            text = f"sentence {number % 7} of the stock." if number % 2 else f"new sentence {client} {number}."
            answer = self._daemon.translate(text, "eng_Latn", "fra_Latn")
            right = answer.status == 200 and answer.json["translated_text"] == text
            with self._lock:
                self.outcomes["right" if right else f"{answer.status} {answer.body[:200]!r}"] += 1
                self.cached += answer.json["usage"]["cached_segments"] if right else 0

    def wait(self, more: int) -> None:
        """Until so many more were answered."""
        before = self.outcomes.total()
        wait_for(lambda: self.outcomes.total() >= before + more, "answers")

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def traffic(daemon: Any, clients: int = 4) -> Iterator[Traffic]:
    made = Traffic(daemon)
    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(made.run, client) for client in range(clients)]
        try:
            yield made
        finally:
            made.stop()
    for client in running:
        client.result()


def write_secret(folder: Path, secret: str) -> Path:
    file = folder / secret
    file.write_text(secret)
    return file


def redis_up(daemon: Any) -> float:
    return figure(daemon, 'nllbd_redis_up{link="redis"}')


def test_no_trouble_of_redis_fails_a_request(start_daemon: Any, start_redis: Any, tmp_path: Path) -> None:
    redis = start_redis(maxmemory="2mb", maxmemory_policy="allkeys-lru")
    settings: dict[str, Any] = {"runner": "fake", "cache_ttl_s": 3600, "cache_max_items": 3, "redis_url": redis.url}
    daemon = start_daemon(**settings, cache_secret_file=write_secret(tmp_path, "secret-of-the-cache"))
    wait_for(lambda: redis_up(daemon) == 1, "Redis up")
    with traffic(daemon) as flow:
        flow.wait(50)
        redis.signal(signal.SIGSTOP)
        wait_for(lambda: redis_up(daemon) == 0, "the circuit open")
        flow.wait(50)
        redis.signal(signal.SIGCONT)
        wait_for(lambda: redis_up(daemon) == 1, "Redis back")
        flow.wait(50)
        redis.kill()
        wait_for(lambda: redis_up(daemon) == 0, "the circuit open")
        flow.wait(50)
        redis.start()
        wait_for(lambda: redis_up(daemon) == 1, "Redis back")
        fill_up(redis)
        flow.wait(50)
    assert set(flow.outcomes) == {"right"}, flow.outcomes
    assert flow.cached > 0
    assert figure(daemon, 'nllbd_cache_requests_total{result="miss"}') > 0
    assert figure(daemon, 'nllbd_cache_writes_total{result="written"}') > 0
    assert daemon.stop() == 0
    check_log(daemon, flow)


def fill_up(redis: Any) -> None:
    import redis as library

    client = library.Redis(port=redis.port)
    for number in range(300):
        client.set(f"somebody else's {number}", b"x" * 10_000)
    assert client.info("stats")["evicted_keys"] > 0
    client.close()


def check_log(daemon: Any, flow: Traffic) -> None:
    """Access lines tell what was cached; nothing tells a text or a secret."""
    lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    access = [line for line in lines if line.get("route") == "/translate"]
    assert sum(line["cached_segments"] for line in access) >= flow.cached
    events = [line["event"] for line in lines]
    assert "Redis is away; doing without" in events
    assert "Redis is back" in events
    assert "sentence" not in daemon.log
    assert "secret-of-the-cache" not in daemon.log


def test_two_daemons_and_a_restart_share_what_redis_has(start_daemon: Any, start_redis: Any, tmp_path: Path) -> None:
    settings = {"runner": "fake", "cache_ttl_s": 3600, "redis_url": start_redis().url}
    settings["cache_secret_file"] = write_secret(tmp_path, "shared")
    one = start_daemon(**settings)
    wait_for(lambda: redis_up(one) == 1, "Redis up")
    text = ["a first one.", "a second one."]
    assert one.translate(text, "en", "fr").json["usage"]["cached_segments"] == 0
    wait_for(lambda: figure(one, 'nllbd_cache_writes_total{result="written"}') == 2, "both written")
    assert one.stop() == 0
    other = start_daemon(**settings)
    wait_for(lambda: redis_up(other) == 1, "Redis up")
    answer = other.translate(text, "en", "fr").json
    assert answer["usage"]["cached_segments"] == 2
    assert [item["text"] for item in answer["translations"]] == text
    stranger = start_daemon(**{**settings, "cache_secret_file": write_secret(tmp_path, "another")})
    wait_for(lambda: redis_up(stranger) == 1, "Redis up")
    assert stranger.translate(text, "en", "fr").json["usage"]["cached_segments"] == 0


def test_a_daemon_starts_and_serves_whatever_redis_is(start_daemon: Any, start_redis: Any) -> None:
    """A wrong password; the state folder then has a secret that was made there."""
    redis = start_redis(requirepass="the-right-word")
    daemon = start_daemon(
        runner="fake", cache_ttl_s=60, redis_url=redis.url.replace("the-right-word", "the-wrong-word")
    )
    for cached in (0, 1):
        answer = daemon.translate("a sentence.", "eng_Latn", "fra_Latn")
        assert answer.json["usage"]["cached_segments"] == cached
    assert redis_up(daemon) == 0
    wait_for(lambda: "Redis is away" in daemon.log, "the line that says so")
    assert "-word" not in daemon.log
    (secret,) = Path(daemon.log_path.parent).rglob("cache_secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "made a cache_secret" in daemon.log


def test_holders_of_stored_keys_see_their_own_alone(
    start_daemon: Any, start_redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so do they on the next host, through Redis."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    ada, bob = (make_key(name) for name in ("ada", "bob"))
    settings = {"runner": "fake", "cache_ttl_s": 60, "redis_url": start_redis().url}
    one = start_daemon(**settings)
    wait_for(lambda: redis_up(one) == 1, "Redis up")

    def cached(daemon: Any, key: str) -> int:
        body = {"text": "a sentence.", "source_lang": "eng_Latn", "target_lang": "fra_Latn"}
        found: int = daemon.request("POST", "/translate", body, X_API_Key=key).json["usage"]["cached_segments"]
        return found

    assert [cached(one, key) for key in (ada, bob, ada, bob)] == [0, 0, 1, 1]
    wait_for(lambda: figure(one, 'nllbd_cache_writes_total{result="written"}') == 2, "both written")
    other = start_daemon(**settings)
    wait_for(lambda: redis_up(other) == 1, "Redis up")
    assert cached(other, ada) == 1
    assert one.stop() == other.stop() == 0


def make_key(name: str) -> str:
    command = [sys.executable, "-m", "nllbd", "keys", "create", name, "--json"]
    return str(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["key"])


def test_a_paused_redis_does_not_hold_up_a_stop(start_daemon: Any, start_redis: Any) -> None:
    redis = start_redis()
    daemon = start_daemon(runner="fake", cache_ttl_s=60, redis_url=redis.url)
    wait_for(lambda: redis_up(daemon) == 1, "Redis up")
    redis.signal(signal.SIGSTOP)
    assert daemon.translate("a sentence.", "eng_Latn", "fra_Latn").status == 200
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10.0
    assert "Traceback" not in daemon.log


def test_sighup_turns_the_cache_off_and_on(start_daemon: Any, tmp_path: Path) -> None:
    file = tmp_path / "nllbd.toml"
    file.write_text("cache_ttl_s = 60\n")
    daemon = start_daemon(runner="fake", cache_ttl_s=None, config=file)

    def cached() -> int:
        found: int = daemon.translate("a sentence.", "eng_Latn", "fra_Latn").json["usage"]["cached_segments"]
        return found

    assert [cached(), cached()] == [0, 1]
    for ttl, expected in ((0, [0, 0]), (60, [0, 1])):
        seen = daemon.log.count("settings reloaded")
        file.write_text(f"cache_ttl_s = {ttl}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda seen=seen: daemon.log.count("settings reloaded") > seen, "the reload")
        assert [cached(), cached()] == expected


@pytest.mark.parametrize("url", ["redis://localhost:port", "redis://[::1", "redis://localhost:1?db=x"])
def test_a_url_that_means_nothing_is_refused(start_daemon: Any, url: str) -> None:
    daemon = start_daemon(runner="fake", redis_url=url, wait=False)
    assert daemon.process.wait(WITHIN_S) == 2
    assert "redis_url" in daemon.log
    assert "Traceback" not in daemon.log
