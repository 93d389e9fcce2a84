"""What goes wrong, as each client package reports it to its user."""

from __future__ import annotations

import re
import signal
import threading
import time

import deepl.http_client
import pytest

from tests.dialects.clients import CLIENTS, UNKNOWN, Azure, Client, DeepL
from tests.dialects.conftest import API_KEY, Guarded, Occupy, metric, wait_until
from tests.e2e.conftest import Daemon, StartDaemon

TEXT = "Good morning."


def assert_fails(client: Client, what: str, text: str = TEXT, target: str = "fr") -> None:
    expected = client.failures[what]
    with pytest.raises(expected.kind) as caught:
        client.translate([text], target)
    assert re.search(expected.says, client.explain(caught.value), re.DOTALL)


@pytest.mark.proves("wrong key")
def test_a_wrong_key(kind: type[Client], guarded: Guarded) -> None:
    assert_fails(kind(guarded.url, "not-the-key"), "wrong key")
    assert kind(guarded.url, API_KEY).translate([TEXT]) == [TEXT]


@pytest.mark.proves("unknown language")
def test_an_unknown_language(kind: type[Client], daemon: Daemon) -> None:
    assert_fails(kind(daemon.url), "unknown language", target=UNKNOWN)


@pytest.mark.proves("text too long")
def test_a_text_too_long(kind: type[Client], daemon: Daemon) -> None:
    assert_fails(kind(daemon.url), "text too long", "é" * 5001)


@pytest.mark.proves("rate limit")
def test_a_rate_limit(kind: type[Client], guarded: Guarded) -> None:
    client = kind(guarded.url, guarded.keys[f"{kind.name} rate limit"])
    assert client.translate([TEXT]) == [TEXT]
    assert_fails(client, "rate limit")


@pytest.mark.proves("quota")
def test_a_quota(kind: type[Client], guarded: Guarded) -> None:
    client = kind(guarded.url, guarded.keys[f"{kind.name} quota"])
    assert client.translate([TEXT]) == [TEXT]
    assert_fails(client, "quota")


def test_azure_s_client_does_not_wait_for_next_month(guarded: Guarded) -> None:
    """As it is set up by default it retries whatever has `Retry-After`, and sleeps until then."""
    client = Azure(guarded.url, guarded.keys[f"{Azure.name} quota"], retry_total=10)
    began = time.monotonic()
    assert_fails(client, "quota", TEXT * 2)
    assert time.monotonic() < began + 30


@pytest.mark.proves("overloaded")
def test_overload(kind: type[Client], slow: Daemon, occupy: Occupy) -> None:
    with occupy(slow):
        assert_fails(kind(slow.url), "overloaded", f"Nobody can wait for {kind.name} now.")


@pytest.mark.proves("retries until served", DeepL.name, Azure.name)
def test_retries_until_served(slow: Daemon, occupy: Occupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients come back by themselves once there is room again, Azure's when `Retry-After` says."""
    monkeypatch.setattr(deepl.http_client, "max_network_retries", 5)
    for client in (DeepL(slow.url), Azure(slow.url, retry_total=5)):
        refused = metric(slow, "nllbd_rejected_total", reason="overloaded")
        with occupy(slow) as release:

            def watch(release: threading.Event = release, refused: float = refused) -> None:
                wait_until(lambda: metric(slow, "nllbd_rejected_total", reason="overloaded") > refused)
                release.set()

            watcher = threading.Thread(target=watch)
            watcher.start()
            assert client.translate(["Later then."]) == ["Later then."]
            watcher.join()


@pytest.mark.proves("draining", *(client.name for client in CLIENTS))
def test_drain(start_daemon: StartDaemon, occupy: Occupy) -> None:
    """On a connection that was kept, each client is told to go elsewhere; a new one is refused."""
    daemon = start_daemon(runner="fake:step_ms=80")
    clients = [kind(daemon.url) for kind in CLIENTS]
    for client in clients:
        assert client.translate(["Hi."]) == ["Hi."]
    with occupy(daemon):
        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in daemon.log)
        for client in clients:
            assert_fails(client, "draining")
    assert daemon.process.wait(60) == 0
