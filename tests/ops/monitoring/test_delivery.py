"""A daemon is stopped, and somebody is called: real Prometheus, real Alertmanager, a real webhook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.kit.programs import eventually
from tests.ops.monitoring.house import ADDRESS, RECEIVED, House

pytestmark = pytest.mark.ops
WITHIN_S = 60.0


SECOND = f'- targets: ["{ADDRESS}:9001"]\n  labels: {{__exporter: nllbd, host: app-1}}\n'


def begin_anew(house: House) -> None:
    """Forget what was notified: while Prometheus started, before its first scrape, everything seemed down."""
    active = "amtool --alertmanager.url http://localhost:9093 alert query 'alertname=~NLLBServer.*'"
    eventually(lambda: "NLLBServer" not in house.sh(active), WITHIN_S, "a quiet beginning")
    house.sh(f"rm -f {RECEIVED}/received")


@pytest.fixture
def second(house: House) -> Iterator[House]:
    """An instance more, seen by Prometheus; gone from it after the test."""
    begin_anew(house)
    house.sh("systemctl start nllbd@1.service", timeout=90)
    house.host.write("/etc/prometheus/targets/app-1-second.yml", SECOND)
    eventually(lambda: house.ask_prometheus(f'up{{instance="{ADDRESS}:9001"}} == 1'), WITHIN_S, "the second daemon")
    yield house
    house.sh("rm /etc/prometheus/targets/app-1-second.yml; systemctl stop nllbd@1.socket nllbd@1.service")
    eventually(lambda: not house.ask_prometheus(f'up{{instance="{ADDRESS}:9001"}}'), WITHIN_S, "the end of it")


@pytest.fixture
def stopped(house: House) -> Iterator[House]:
    """The daemon's socket and process are gone; they come back after the test."""
    begin_anew(house)
    house.sh("systemctl stop nllbd.socket nllbd.service")
    yield house
    known = len(house.notified("/page", "NLLBServersAllDown", "resolved"))
    house.sh("systemctl start nllbd.service", timeout=90)
    eventually(
        lambda: len(house.notified("/page", "NLLBServersAllDown", "resolved")) > known, WITHIN_S, "the all-clear"
    )


def test_one_of_two_daemons_is_stopped(second: House) -> None:
    """The guide's first alert, from the process to the person, and the all-clear."""
    second.sh("systemctl stop nllbd@1.socket nllbd@1.service")
    notes = eventually(lambda: second.notified("/page", "NLLBServerDown", "firing"), WITHIN_S, "a call")
    alert = notes[0]["alerts"][0]
    assert alert["labels"]["instance"] == f"{ADDRESS}:9001"
    assert alert["annotations"]["summary"] == f"nllbd {ADDRESS}:9001 on app-1 is down"
    assert not second.notified("/page", "NLLBServersAllDown", "firing")
    second.sh("systemctl start nllbd@1.service", timeout=90)
    eventually(lambda: second.notified("/page", "NLLBServerDown", "resolved"), WITHIN_S, "the all-clear")


def test_all_daemons_are_stopped(stopped: House) -> None:
    notes = eventually(
        lambda: stopped.notified("/page", "NLLBServersAllDown", "firing"), WITHIN_S, "a call for the only daemon"
    )
    alert = notes[0]["alerts"][0]
    assert notes[0]["receiver"] == "page"
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["runbook"] == "docs/operations/runbooks/daemon.md#nllbserversalldown"
    # one call is enough: that each single daemon is down, too, is held back by the same trouble
    eventually(lambda: "NLLBServerDown" in _inhibited(stopped), WITHIN_S, "the inhibition")


def _inhibited(house: House) -> str:
    """The alerts that Alertmanager holds back because of others."""
    return house.sh("amtool --alertmanager.url http://localhost:9093 alert query --inhibited")


def test_the_watchdog_keeps_calling(house: House) -> None:
    """It goes to its own receiver, again and again: that it stops is the alert."""
    eventually(lambda: house.notified("/deadman", "Watchdog", "firing"), WITHIN_S, "the watchdog")
    assert not house.notified("/page", "Watchdog", "firing")
    assert not house.notified("/ticket", "Watchdog", "firing")


def test_a_host_is_added_by_a_file(house: House) -> None:
    """Without a reload; and taken away by deleting it."""
    new = '- targets: ["127.0.0.1:9115"]\n  labels: {__exporter: node, host: app-2}\n'
    house.host.write("/etc/prometheus/targets/app-2.yml", new)
    eventually(lambda: house.ask_prometheus('up{host="app-2",job="node"} == 1'), WITHIN_S, "the new host")
    assert "__exporter" not in house.ask_prometheus('up{host="app-2"}')[0]["metric"]
    house.sh("rm /etc/prometheus/targets/app-2.yml")
    eventually(lambda: not house.ask_prometheus('up{host="app-2"}'), WITHIN_S, "the end of it")
