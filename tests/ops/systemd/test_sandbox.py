"""The sandbox holds, and translation works inside it: oneDNN's int8 and bfloat16 code is generated and run there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ops.systemd.conftest import Machine

pytestmark = pytest.mark.ops

ALLOWED = {
    "write state",
    "write cache",
    "write /tmp",
    "run generated code",
    "pin a thread",
    "know its limits",
    "know the memory",
}
KEY = "k3y-of-the-test"
TEXTFILE = "var/lib/prometheus/node-exporter/nllbd-check.prom"
STATE = "/var/lib/nllbd/probe.json"


@pytest.fixture(scope="module")
def machine(boot: Callable[..., Machine]) -> Machine:
    """With secrets, since the service runs with its credentials."""
    machine = boot("")
    machine.host.write("/opt/probe.py", Path(__file__).with_name("probe.py").read_text("utf-8"))
    machine.drop_in("probe", f"[Service]\nExecStartPost=/opt/nllbd/current/bin/python /opt/probe.py {STATE}\n")
    for name in ("api_key", "check_key"):
        machine.host.write(f"/etc/nllbd/credentials/{name}", KEY, 0o600)
    return machine


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_translates_inside_and_can_do_nothing_else(machine: Machine, dtype: str) -> None:
    machine.settings(f'dtype = "{dtype}"\n')
    machine.host.systemctl("restart", "nllbd.service", timeout=120)
    asked = ["The weather is fine today.", "Where is the station?"]
    body = json.dumps({"text": asked, "source_lang": "en", "target_lang": "fr"})
    url, key = "http://127.0.0.1:8000/translate", f"X-API-Key: {KEY}"
    reply = machine.host.run("curl", "-sS", "--fail-with-body", "-H", key, "--json", body, url).stdout
    translations = [item["text"] for item in json.loads(reply)["translations"]]
    assert all(translations)
    assert not set(translations) & set(asked)
    ready = [e for e in machine.host.journal("nllbd.service") if e.get("NLLBD_EVENT") == "ready"][-1]
    assert ready["NLLBD_DTYPE"] == dtype
    tried = json.loads((machine.host.root / STATE.lstrip("/")).read_text())
    assert {name for name, outcome in tried.items() if outcome == "done"} == ALLOWED, tried


@pytest.mark.parametrize("process", ["daemon", "engine"])
def test_the_kernel_confirms_it(machine: Machine, process: str) -> None:
    machine.host.systemctl("start", "nllbd.service", timeout=120)
    pid = machine.main_pid() if process == "daemon" else machine.engine_pid()
    lines = machine.host.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")} == {0}
    assert status["Uid"].split()[0] != "0"


def test_secrets_are_nowhere_but_in_the_credential(machine: Machine) -> None:
    machine.host.systemctl("start", "nllbd.service", timeout=120)
    for pid in (machine.main_pid(), machine.engine_pid()):
        for file in ("environ", "cmdline"):
            assert KEY not in machine.host.run("cat", f"/proc/{pid}/{file}").stdout
    assert KEY not in json.dumps(machine.host.journal("nllbd.service"))
    stat = machine.host.run("stat", "-c", "%a %U", "/run/credentials/nllbd.service/api_key").stdout.split()
    assert stat == ["400", "nllbd"]


def test_daily_checks_become_metrics(machine: Machine) -> None:
    """As their timer starts them, in a sandbox of their own. They may well find fault with a host that has no firewall,
    no proxy and no backup: that is told, too. (Backup and verification: tests/ops/backup.)"""
    machine.host.systemctl("start", "nllbd.service", timeout=120)
    machine.host.systemctl("start", "nllbd-check.service", check=False, timeout=150)
    said = "\n".join(entry["MESSAGE"] for entry in machine.host.journal("nllbd-check.service"))
    written = (machine.host.root / TEXTFILE).read_text()
    for check in ("health", "translation"):
        assert f'nllbd_check_ok{{check="{check}"}} 1' in written, said
    for complaint in ("Traceback", "Read-only file system", "Operation not permitted", KEY):
        assert complaint not in said


def test_jobs_give_way_to_translations(machine: Machine) -> None:
    for unit in ("nllbd-backup.service", "nllbd-backup-verify.service", "nllbd-check.service"):
        assert (machine.host.show(unit, "Nice"), machine.host.show(unit, "CPUWeight")) == ("15", "20")
