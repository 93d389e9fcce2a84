"""nllbd.service in a booted systemd: started, looked at, reloaded, restarted, killed and frozen, under load."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.ops.kit.programs import eventually
from tests.ops.systemd.conftest import ECHO, Machine

pytestmark = pytest.mark.ops


@pytest.fixture(scope="module")
def booted(boot: Callable[..., Machine]) -> Machine:
    return boot()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """Serving, with a fresh count of its restarts."""
    booted.settings(ECHO)
    booted.host.systemctl("reset-failed")
    booted.host.systemctl("start", "nllbd.service")
    yield booted
    booted.host.systemctl("reset-failed")


def test_start_returns_when_it_serves_and_status_says_what(machine: Machine) -> None:
    machine.host.systemctl("restart", "nllbd.service")
    assert json.loads(machine.translate("It rains."))["translated_text"] == "It rains."
    status = machine.host.systemctl("status", "nllbd.service").stdout
    assert 'Status: "serving demo on http://127.0.0.1:8000: idle"' in status
    assert "TriggeredBy: ● nllbd.socket" in status
    with machine.traffic(clients=8) as traffic:
        traffic.wait_for(5)
        eventually(
            lambda: re.search(
                r"[1-9]\d*\.\d requests/s, \d+ in flight, \d+ sentences? decoding, \d+ waiting, \d+ tokens/s",
                machine.host.show("nllbd.service", "StatusText"),
            ),
            what="the load in the status",
        )
    assert not traffic.failed, traffic.report()


def test_reload_while_traffic_flows(machine: Machine) -> None:
    pid = machine.main_pid()
    with machine.traffic() as traffic:
        traffic.wait_for(20)
        for max_texts in (7, 128):
            machine.settings(f"{ECHO}max_texts = {max_texts}\n")
            machine.host.systemctl("reload", "nllbd.service")
            eventually(
                lambda: machine.host.show("nllbd.service", "SubState") == "running",
                what="running again after the reload",
            )
            traffic.wait_for(20)
    assert not traffic.failed, traffic.report()
    assert machine.main_pid() == pid
    reloads = [
        entry for entry in machine.host.journal("nllbd.service") if entry.get("NLLBD_EVENT") == "settings reloaded"
    ]
    assert len(reloads) == 2


def test_a_mistake_in_the_settings_fails_the_reload_and_changes_nothing(machine: Machine) -> None:
    pid = machine.main_pid()
    machine.settings(f"{ECHO}max_textx = 7\n")
    done = machine.host.systemctl("reload", "nllbd.service", check=False)
    assert done.returncode != 0
    assert "did you mean 'max_texts'?" in "".join(e["MESSAGE"] for e in machine.host.journal("nllbd.service"))
    assert json.loads(machine.translate())["translated_text"] == "Good morning."
    assert machine.main_pid() == pid
    machine.settings(ECHO)
    machine.host.systemctl("reload", "nllbd.service")


def test_restart_under_load_fails_no_request(machine: Machine) -> None:
    """The socket is systemd's: what comes while nobody serves waits in its backlog."""
    with machine.traffic(clients=8) as kept, machine.traffic(rate=40, keepalive=False) as new:
        kept.wait_for(30)
        before = machine.main_pid()
        machine.host.systemctl("restart", "nllbd.service")
        assert machine.main_pid() != before
        new.wait_for(20)
        machine.host.systemctl("restart", "nllbd.target")
        new.wait_for(20)
    for traffic in (kept, new):
        assert not traffic.failed, traffic.report()


def test_kill_9_is_followed_by_a_new_daemon(machine: Machine) -> None:
    before = machine.main_pid()
    machine.host.run("kill", "-KILL", str(before))
    assert json.loads(machine.translate())["translated_text"] == "Good morning.", "waited in the backlog"
    machine.wait_active()
    assert machine.main_pid() != before
    assert machine.host.show("nllbd.service", "NRestarts") == "1"


def test_kill_9_of_the_engine_is_not_even_seen(machine: Machine) -> None:
    pid, engine = machine.main_pid(), machine.engine_pid()
    with machine.traffic() as traffic:
        traffic.wait_for(20)
        machine.host.run("kill", "-KILL", str(engine))
        eventually(lambda: machine.engine_pid() not in (engine, 0), what="another engine")
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()
    assert (machine.main_pid(), machine.host.show("nllbd.service", "NRestarts")) == (pid, "0")


def test_a_frozen_daemon_starves_the_watchdog_and_is_replaced(machine: Machine) -> None:
    machine.drop_in("watchdog", "[Service]\nWatchdogSec=3s\n")
    machine.host.systemctl("restart", "nllbd.service")
    before = machine.main_pid()
    machine.host.run("kill", "-STOP", str(before))
    assert json.loads(machine.translate())["translated_text"] == "Good morning."
    machine.wait_active()
    assert machine.main_pid() != before
    messages = [entry["MESSAGE"] for entry in machine.host.journal("nllbd.service")]
    assert any("Watchdog timeout (limit 3s)" in message for message in messages)
    assert any(message.startswith("Fatal Python error: Aborted") for message in messages), "where it hung"
    machine.host.run("rm", "-r", "/run/systemd/system/nllbd.service.d")
    machine.host.systemctl("daemon-reload")


def test_a_frozen_engine_is_the_daemons_own_business(machine: Machine) -> None:
    pid, engine = machine.main_pid(), machine.engine_pid()
    with machine.traffic() as traffic:
        traffic.wait_for(20)
        machine.host.run("kill", "-STOP", str(engine))
        eventually(lambda: machine.engine_pid() not in (engine, 0), what="another engine")
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()
    assert machine.main_pid() == pid


SLOW_ENGINE = """
import sys, time
if "nllbd.engine.worker" in sys.orig_argv:
    time.sleep(7)
"""


def test_a_model_that_loads_for_long_is_given_the_time(machine: Machine) -> None:
    """Loading lasts longer than TimeoutStartSec=; the status line says how long so far."""
    packages = machine.host.run("sh", "-c", "echo /opt/nllbd/current/lib/python*/site-packages").stdout.strip()
    machine.host.write(f"{packages}/sitecustomize.py", SLOW_ENGINE)
    machine.drop_in("impatient", "[Service]\nTimeoutStartSec=5s\n")
    machine.host.systemctl("stop", "nllbd.service")
    machine.host.systemctl("start", "--no-block", "nllbd.service")
    eventually(
        lambda: re.fullmatch(r"loading demo, [6-9] s so far", machine.host.show("nllbd.service", "StatusText")),
        what="a loading daemon beyond its time",
    )
    assert machine.host.show("nllbd.service", "ActiveState") == "activating"
    machine.wait_active()
    assert machine.host.show("nllbd.service", "NRestarts") == "0"
    machine.host.run("rm", "-r", f"{packages}/sitecustomize.py", "/run/systemd/system/nllbd.service.d")
    machine.host.systemctl("daemon-reload")


def test_the_journal_finds_a_request_by_its_id(machine: Machine) -> None:
    reply = machine.host.run(
        "curl", "-sS", "-D-", "-o/dev/null", "-H", "X-Request-ID: searched-for-1", "http://127.0.0.1:8000/languages"
    ).stdout
    assert "200 OK" in reply
    eventually(lambda: _found(machine, "NLLBD_REQUEST_ID=searched-for-1"), what="the request in the journal")
    (entry,) = _found(machine, "NLLBD_REQUEST_ID=searched-for-1")
    assert entry["NLLBD_EVENT"] == "request"
    assert entry["NLLBD_STATUS"] == "200"
    assert entry["SYSLOG_IDENTIFIER"] == "nllbd"
    assert (entry["PRIORITY"], entry["_SYSTEMD_UNIT"]) == ("6", "nllbd.service")
    assert json.loads(entry["MESSAGE"])["request_id"] == "searched-for-1"


def test_stopped_means_drained(machine: Machine) -> None:
    with machine.traffic(clients=4) as traffic:
        traffic.wait_for(10)
        machine.host.systemctl("stop", "nllbd.target")
        for unit in ("nllbd.socket", "nllbd.service"):
            eventually(lambda unit=unit: machine.host.show(unit, "ActiveState") == "inactive", what=f"{unit} stopped")
        assert machine.host.show("nllbd.service", "Result") == "success"
    began_while_up = [outcome for outcome in traffic.failed if outcome.error is None]
    assert not began_while_up, traffic.report()


def _found(machine: Machine, match: str) -> list[dict[str, str]]:
    machine.host.run("journalctl", "--sync")
    text = machine.host.run("journalctl", "-o", "json", "--no-pager", "-u", "nllbd", match, check=False).stdout
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
