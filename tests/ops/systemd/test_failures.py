"""What cannot work ends in a clear failed state, not in an endless loop; what can is brought back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.ops.kit.programs import CHECKOUT, eventually
from tests.ops.systemd.conftest import ECHO, Machine

pytestmark = pytest.mark.ops
UNIT = "nllbd.service"


@pytest.fixture(scope="module")
def booted(boot: Callable[..., Machine]) -> Machine:
    return boot()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    yield booted
    booted.host.systemctl("stop", "nllbd.socket", UNIT)
    booted.host.run("rm", "-rf", f"/run/systemd/system/{UNIT}.d")
    booted.settings(ECHO)
    booted.host.systemctl("daemon-reload")
    booted.host.systemctl("reset-failed")


def test_a_mistake_in_the_settings_is_said_once_and_not_tried_again(machine: Machine) -> None:
    machine.settings("max_textx = 5\n")
    assert machine.host.systemctl("start", UNIT, check=False).returncode != 0
    shown = {name: machine.host.show(UNIT, name) for name in ("ActiveState", "Result", "ExecMainStatus", "NRestarts")}
    assert shown == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "2", "NRestarts": "0"}
    status = machine.host.systemctl("status", UNIT, check=False).stdout
    assert "Status: \"not started: /etc/nllbd/nllbd.toml: unknown setting 'max_textx'; did you mean" in status
    machine.settings(ECHO)
    machine.host.systemctl("start", UNIT)
    assert "Good morning." in machine.translate()


def test_clients_do_not_make_it_try_for_ever(machine: Machine) -> None:
    """Each connection to the socket starts the service: that ends after ten attempts, and the port is closed then."""
    machine.settings("max_textx = 5\n")
    machine.host.systemctl("start", "nllbd.socket")
    machine.translate(check=False)
    eventually(lambda: machine.host.show("nllbd.socket", "ActiveState") == "failed", what="the socket given up")
    assert machine.host.show("nllbd.socket", "Result") in ("service-start-limit-hit", "trigger-limit-hit")
    assert machine.host.show(UNIT, "ActiveState") == "failed"
    starts = [e for e in machine.host.journal(UNIT) if "did you mean" in e["MESSAGE"]]
    assert len(starts) <= 12
    machine.settings(ECHO)
    machine.host.systemctl("reset-failed", "nllbd.socket", UNIT)
    machine.host.systemctl("start", UNIT)
    assert "Good morning." in machine.translate()


def test_beyond_this_machine_nobody_is_served_without_credentials(machine: Machine) -> None:
    """The sample drop-in for other addresses, as it is."""
    public = (CHECKOUT / "systemd/drop-ins/public.conf").read_text("utf-8")
    machine.drop_in("public", public, unit="nllbd.socket")
    assert machine.host.systemctl("start", UNIT, check=False).returncode != 0
    assert "no credentials are set" in machine.host.show(UNIT, "StatusText")
    machine.host.systemctl("stop", "nllbd.socket", UNIT)
    machine.host.systemctl("reset-failed")
    machine.host.write("/etc/nllbd/credentials/api_key", "k3y", 0o600)
    machine.host.systemctl("start", UNIT)
    for address in ("127.0.0.1", "[::1]"):
        assert (
            machine.host.run("curl", "-sS", "-o/dev/null", "-w%{http_code}", f"http://{address}:8000/health").stdout
            == "200"
        )
    assert machine.translate(check=False).count("unauthorized") == 1
    machine.host.run("rm", "-r", "/etc/nllbd/credentials/api_key", "/run/systemd/system/nllbd.socket.d")


def test_a_model_that_is_not_there_is_named(machine: Machine) -> None:
    machine.settings('model = "facebook/nllb-200-distilled-600M"\n')
    machine.host.systemctl("start", UNIT, check=False)
    status = machine.host.systemctl("status", UNIT, check=False).stdout
    assert "not started: " in status
    assert "nllbd model pull" in status


def test_the_memory_killer_takes_the_engine_and_no_request_is_lost(machine: Machine) -> None:
    machine.settings('dtype = "float32"\nnum_threads = 1\n')
    machine.host.systemctl("start", UNIT)
    pid, engine = machine.main_pid(), machine.engine_pid()
    with machine.traffic(echoes=False, timeout_s=90.0) as traffic:
        traffic.wait_for(3)
        _squeeze(machine)
        with _document(machine) as answer:
            # Again and again: what was in use while it was squeezed first, and is not any more, would be room.
            eventually(lambda: _oom_kills(machine) > 0 or _squeeze(machine), what="an OOM kill")
            machine.host.run("bash", "-c", _GROUP + _RELEASE)
            assert '"translations"' in answer.communicate(timeout=120)[0], "what made it die is translated all the same"
        eventually(lambda: machine.engine_pid() not in (engine, 0), what="another engine")
        traffic.wait_for(3)
    assert not traffic.failed, traffic.report()
    assert machine.main_pid() == pid, "the daemon outlives its engine"
    assert machine.host.show(UNIT, "NRestarts") == "0"
    assert machine.host.show(UNIT, "ActiveState") == "active"


_GROUP = """
cd /sys/fs/cgroup/memory/nllbd.slice/nllbd.service 2>/dev/null || cd /sys/fs/cgroup/nllbd.slice/nllbd.service
"""
_SQUEEZE = """
if [ -e memory.max ]; then echo $(($(cat memory.current) / 2)) >memory.max; exit; fi
# The first version of control groups refuses a limit that it cannot reach: as low as it goes, the next page is one
# too many.
limit=$(cat memory.usage_in_bytes)
while echo $limit >memory.limit_in_bytes; do limit=$((limit * 98 / 100)); done 2>/dev/null
"""
_RELEASE = "if [ -e memory.max ]; then echo max >memory.max; else echo -1 >memory.limit_in_bytes; fi"


def _document(machine: Machine) -> subprocess.Popen[str]:
    """A request that needs more memory than short ones do."""
    sentences = [f"This is number {n} of a great many rather long sentences that somebody wants." for n in range(12)]
    body = json.dumps({"text": sentences, "source_lang": "en", "target_lang": "fr", "num_beams": 8})
    command = ("curl", "-sS", "--max-time", "100", "--json", body, "http://127.0.0.1:8000/translate")
    return machine.host.popen(*command, stdout=subprocess.PIPE)


def _squeeze(machine: Machine) -> bool:
    """Leave the unit less memory than its processes have. Returns False: whether that has killed is asked elsewhere."""
    machine.host.run("bash", "-c", _GROUP + _SQUEEZE, check=False)
    return False


def _oom_kills(machine: Machine) -> int:
    """As the kernel counts them; systemd itself only sees them with the second version of control groups."""
    count = "sed -n 's/^oom_kill //p' memory.events memory.oom_control 2>/dev/null"
    return int(machine.host.run("bash", "-c", _GROUP + count, check=False).stdout or 0)
