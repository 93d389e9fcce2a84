"""Two instances on one host behind nginx: each with its ports, device and memory node, restarted and killed in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ops.kit.programs import CHECKOUT, eventually, need
from tests.ops.systemd.conftest import ECHO, Machine

pytestmark = pytest.mark.ops

EDGE = """
error_log stderr;
events {}
http {
    access_log off;
    upstream nllbd {
        least_conn;
        server 127.0.0.1:8000 max_fails=1 fail_timeout=2s;
        server 127.0.0.1:8001 max_fails=1 fail_timeout=2s;
        keepalive 16;
    }
    server {
        listen 127.0.0.1:8080;
        location / {
            proxy_pass http://nllbd;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream error timeout http_503 non_idempotent;
            proxy_next_upstream_tries 2;
        }
    }
}
"""


@pytest.fixture(scope="module")
def machine(boot: Callable[..., Machine]) -> Machine:
    need("nginx")
    machine = boot()
    for instance in (0, 1):
        machine.host.run("ln", "-sfn", "../nllbd.toml", f"/etc/nllbd/instances/{instance}.toml")
    machine.host.systemctl("enable", "nllbd@0.service", "nllbd@1.service")
    machine.host.systemctl("start", "nllbd.target")
    for instance in (0, 1):
        machine.wait_active(f"nllbd@{instance}.service")
    machine.host.write("/etc/nginx/nginx.conf", EDGE)
    machine.host.systemctl("start", "nginx.service")
    return machine


def test_each_has_its_ports_and_its_device(machine: Machine) -> None:
    for instance in (0, 1):
        assert "Good morning." in machine.translate(port=8000 + instance)
        assert "nllbd_num_sequences_running" in machine.get("/metrics", port=9000 + instance)
        pid = machine.main_pid(f"nllbd@{instance}.service")
        environ = machine.host.run("cat", f"/proc/{pid}/environ").stdout.split("\0")
        assert f"CUDA_VISIBLE_DEVICES={instance}" in environ
    assert machine.host.show("nllbd@0.service", "Slice") == "nllbd.slice"


def test_restarts_one_after_the_other_behind_nginx_fail_nobody(machine: Machine) -> None:
    with machine.traffic(8080, clients=6) as traffic:
        for instance in (0, 1):
            traffic.wait_for(20)
            machine.host.systemctl("restart", f"nllbd@{instance}.service")
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()


def test_an_instance_that_is_killed_is_covered_by_the_other(machine: Machine) -> None:
    with machine.traffic(8080, clients=6) as traffic:
        traffic.wait_for(20)
        before = machine.main_pid("nllbd@1.service")
        machine.host.run("kill", "-KILL", str(before))
        traffic.wait_for(20)
        eventually(lambda: machine.main_pid("nllbd@1.service") not in (0, before), what="the instance back")
        machine.wait_active("nllbd@1.service")
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()


def test_an_instance_is_kept_on_its_memory_node(machine: Machine) -> None:
    """This machine may have one node only: the policy is there all the same."""
    machine.host.copy(CHECKOUT / "systemd/nllbd-place", "/usr/local/sbin/nllbd-place")
    machine.host.run("nllbd-place")
    machine.host.systemctl("restart", "nllbd@0.service")
    assert machine.host.show("nllbd@0.service", "NUMAPolicy") == "bind"
    maps = machine.host.run("cat", f"/proc/{machine.engine_pid('nllbd@0.service')}/numa_maps").stdout
    assert {line.split()[1] for line in maps.splitlines()} == {"bind:0"}
    assert "Good morning." in machine.translate()
    machine.host.run("nllbd-place", "--remove")


def test_the_target_stops_and_starts_all(machine: Machine) -> None:
    units = [f"nllbd@{instance}.{kind}" for instance in (0, 1) for kind in ("service", "socket")]
    machine.host.systemctl("stop", "nllbd.target")
    for unit in units:
        eventually(lambda unit=unit: machine.host.show(unit, "ActiveState") == "inactive", what=f"{unit} stopped")
    machine.host.systemctl("start", "nllbd.target")
    for unit in units:
        machine.wait_active(unit)


def test_a_host_that_lost_power_serves_again_by_itself(machine: Machine) -> None:
    machine.host.systemctl("enable", "nllbd-backup.timer", "nllbd-backup-verify.timer", "nllbd-check.timer")
    machine.settings(ECHO)
    machine.host.kill()
    machine.host.boot()
    for instance in (0, 1):
        machine.wait_active(f"nllbd@{instance}.service")
        assert "Good morning." in machine.translate(port=8000 + instance)
    timers = machine.host.systemctl("list-timers", "nllbd*").stdout
    for timer in ("nllbd-backup.timer", "nllbd-backup-verify.timer", "nllbd-check.timer"):
        assert timer in timers
        assert machine.host.show(timer, "NextElapseUSecRealtime") not in ("", "0", "n/a")
