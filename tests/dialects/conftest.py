"""Real daemons for real clients: one that translates, one with keys, one that is slow; the record of what passed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import deepl.http_client
import pytest

from nllbd.principal import Scope
from nllbd.store import key_text
from nllbd.store.records import KeyLimits, KeyRecord
from nllbd.store.store import Store
from tests.dialects import compatibility
from tests.dialects.clients import CLIENTS, Client
from tests.e2e.conftest import Daemon, StartDaemon, start_daemon

__all__ = ["start_daemon"]

API_KEY = "configured-key-1"
WAIT_S = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-compatibility", action="store_true", help="write what passes into the README's table")


@dataclass
class _Record:
    """What the tests of this session prove, and what of it held."""

    claimed: set[compatibility.Proof] = field(default_factory=set)
    failed: set[compatibility.Proof] = field(default_factory=set)
    passed: set[compatibility.Proof] = field(default_factory=set)
    num_deselected: int = 0


_RECORD = pytest.StashKey[_Record]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(feature, *clients): what of a client's features a test proves")
    config.stash[_RECORD] = _Record()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    record = config.stash[_RECORD]
    for item in items:
        record.claimed |= _proofs(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    record = item.config.stash[_RECORD]
    if report.when == "call" and report.passed:
        record.passed |= _proofs(item)
    elif not report.passed:
        record.failed |= _proofs(item)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--record-compatibility", False):
        record = session.config.stash[_RECORD]
        compatibility.write(record.passed - record.failed)


def _proofs(item: pytest.Item) -> set[compatibility.Proof]:
    """(client, feature) for each mark; of a parametrized `kind` (a Client) for that one."""
    kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
    found = set()
    for mark in item.iter_markers("proves"):
        feature, *clients = mark.args
        found |= {(client, feature) for client in clients or [kind.name]}
    return found


@pytest.fixture
def claimed(request: pytest.FixtureRequest) -> set[compatibility.Proof]:
    """All proofs of the tests that were collected."""
    return request.config.stash[_RECORD].claimed


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """Each client in turn."""
    return request.param


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepL's client retries for ten seconds; tests of its retries say so."""
    monkeypatch.setattr(deepl.http_client, "max_network_retries", 0)


@pytest.fixture(scope="session")
def daemon(start_daemon: StartDaemon) -> Daemon:
    """The demo model, open to everybody, as `make run` starts it."""
    return start_daemon(dtype="float32")


@dataclass(frozen=True)
class Guarded:
    """A daemon with keys. `keys`: name → text of the stored key."""

    daemon: Daemon
    keys: dict[str, str]

    @property
    def url(self) -> str:
        return self.daemon.url


@pytest.fixture(scope="session")
def guarded(start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """A daemon with a configured key, and for each client one stored key of one request a minute and one of few
    characters a month.
    """
    folder = tmp_path_factory.mktemp("keys")
    limits = {
        "rate limit": KeyLimits(rate_per_minute=1, rate_burst=1),
        "quota": KeyLimits(monthly_characters=20),
        "usage": KeyLimits(monthly_characters=1000),
    }
    keys = {
        f"{client.name} {what}": _key_record(client.name, limit) for client in CLIENTS for what, limit in limits.items()
    }
    url = f"sqlite+aiosqlite:///{folder / 'nllbd.db'}"
    asyncio.run(_store_keys(url, [record for record, _ in keys.values()]))
    key_file = folder / "api-key"
    key_file.write_text(API_KEY, encoding="utf-8")
    daemon = start_daemon(runner="fake", api_key_file=key_file, database_url=url)
    return Guarded(daemon, {name: text for name, (_, text) in keys.items()})


@pytest.fixture(scope="session")
def slow(start_daemon: StartDaemon) -> Daemon:
    """A daemon that takes 100 ms a token and one sentence at a time."""
    return start_daemon(runner="fake:step_ms=100", max_waiting_segments=1)


Occupy = Callable[[Daemon], contextlib.AbstractContextManager[threading.Event]]


@pytest.fixture(scope="session")
def occupy() -> Occupy:
    """`with occupy(daemon) as release:` — a sentence is being translated, until the event is set or the block ends."""

    @contextlib.contextmanager
    def occupied(daemon: Daemon) -> Iterator[threading.Event]:
        release = threading.Event()
        text = " ".join(f"word{i}" for i in range(40)) + f" {time.monotonic_ns()}."
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT_S)
        body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr"})
        connection.request("POST", "/translate", body, {"Content-Type": "application/json"})
        closer = threading.Thread(target=lambda: (release.wait(WAIT_S), connection.sock and connection.close()))
        closer.start()
        wait_until(lambda: metric(daemon, "nllbd_num_sequences_running") >= 1)
        try:
            yield release
        finally:
            release.set()
            closer.join()
            wait_until(lambda: daemon.process.poll() is not None or metric(daemon, "nllbd_admitted_tokens") == 0)

    return occupied


def metric(daemon: Daemon, name: str, **labels: str) -> float:
    """A metric's value now, all series that bear `labels` added; 0 if there is none."""
    found = 0.0
    for line in daemon.get_metrics().splitlines():
        match = re.fullmatch(rf"{name}(\{{.*\}})? ([^ ]+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; the pause between looks only spares the processor."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"did not come true within {WAIT_S} s"
        time.sleep(0.02)


def _key_record(name: str, limits: KeyLimits) -> tuple[KeyRecord, str]:
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    scopes = frozenset({Scope.TRANSLATE})
    return KeyRecord(key_id, name, key_text.digest(text), scopes, datetime.now(UTC), limits), text


async def _store_keys(url: str, records: list[KeyRecord]) -> None:
    store = await Store.open(url)
    try:
        for record in records:
            await store.add_key(record)
    finally:
        await store.close()
