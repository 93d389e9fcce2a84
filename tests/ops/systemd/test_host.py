"""The hosts of these tests: real enough for networks and power cuts, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.kit.host import Host, network
from tests.ops.kit.programs import CHECKOUT, eventually, need_root

pytestmark = pytest.mark.ops

ABANDONED = """
import signal
from tests.ops.kit.host import Host, network
with network("nllbd-abandoned") as netns:
    host = Host("abandoned", netns=netns).boot()
    print(host.pid, flush=True)
    signal.pause()
"""


def traces(name: str) -> list[str]:
    """What a host of that name has on this machine: folders, mounts, control groups."""
    folders = [str(path) for path in Path("/tmp").glob(f"nllbd-host-{name}.*")]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"nllbd-host-{name}." in line]
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"/nllbd-{name}-" in path]
    networks = [str(path) for path in Path("/run/netns").glob(f"nllbd-{name}")]
    return folders + mounts + groups + networks


def test_a_host_goes_with_whoever_started_it() -> None:
    need_root()
    with subprocess.Popen(
        [sys.executable, "-c", ABANDONED], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, start_new_session=True
    ) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert [trace for trace in traces("abandoned") if "cgroup" in trace]
        os.killpg(started.pid, signal.SIGKILL)  # as a runner of tests does when their time is up
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="PID 1 gone")
    eventually(lambda: not traces("abandoned"), what="no trace left")


def test_two_hosts_on_a_network_and_a_power_cut() -> None:
    names = [f"nllbd-{side}{os.getpid()}" for side in "ab"]
    with network(names[0]) as a, network(names[1]) as b:
        ends = ("ip", "-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b)
        subprocess.run(ends, check=True)
        for netns, address in ((a, "10.9.0.1/24"), (b, "10.9.0.2/24")):
            subprocess.run(["ip", "-n", netns, "addr", "add", address, "dev", "eth0"], check=True)
            subprocess.run(["ip", "-n", netns, "link", "set", "eth0", "up"], check=True)
        with Host("left", netns=a) as left, Host("right", netns=b) as right:
            assert (left.run("hostname").stdout, right.run("hostname").stdout) == ("left\n", "right\n")
            right.write("/srv/page/index.html", "kept")
            right.write("/etc/systemd/system/page.service", PAGE)
            right.systemctl("enable", "--now", "page.service")
            fetch = ("curl", "-sS", "--max-time", "5", "--retry", "20", "--retry-connrefused", "--retry-delay", "1")
            assert left.run(*fetch, "http://10.9.0.2:8099/").stdout == "kept"
            right.kill()
            assert (right.root / "srv/page/index.html").read_text() == "kept", "its disk can be read while it is off"
            right.boot()
            assert left.run(*fetch, "http://10.9.0.2:8099/").stdout == "kept"
            with pytest.raises(AssertionError, match="exit 3"):
                left.run("sh", "-c", "exit 3")
    assert not traces("left") + traces("right")


PAGE = """
[Service]
ExecStart=/usr/bin/python3 -m http.server --directory /srv/page 8099
[Install]
WantedBy=multi-user.target
"""
