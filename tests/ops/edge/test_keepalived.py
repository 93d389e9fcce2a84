"""Two load balancers with one address, on hosts of their own: it moves when its master is gone, within seconds."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.edge.lan import Lan
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.edge import DEPLOY, Edge
from tests.ops.kit.nginx import kill_family
from tests.ops.kit.programs import eventually, need, need_root
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

SHARED = "10.97.0.10"
NAME = "api.example.test"
WITHIN_S = 5.0


class Balancer:
    """One of the two: nginx and keepalived on a host."""

    def __init__(self, lan: Lan, host: str, other: str, priority: int, folder: Path, servers: list[str]) -> None:
        self.lan, self.host = lan, host
        self._install_keepalived(folder / "keepalived", other, priority)
        self.edge = Edge(
            folder / "nginx",
            servers,
            "--address",
            "0.0.0.0",
            netns=lan.names[host],
            https_port=443,
            http_port=80,
            status_port=8089,
        )
        self.keepalived = self.start_keepalived()

    def start_keepalived(self) -> subprocess.Popen[bytes]:
        """In the foreground, with nothing of it outside its folder."""
        command = ["ip", "netns", "exec", self.lan.names[self.host], str(need("keepalived")["keepalived"]), "-n", "-l"]
        command += ["-D", "-f", str(self._folder / "keepalived.conf")]
        for flag, name in (("-p", "main"), ("-r", "vrrp"), ("-c", "checkers")):
            command += [flag, str(self._folder / f"{name}.pid")]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def has_address(self) -> bool:
        return f" {SHARED}/" in self.lan.run(self.host, "ip", "-o", "addr", "show", "dev", "eth0")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def close(self) -> None:
        kill_family(self.keepalived)
        self.edge.kill()

    def _install_keepalived(self, folder: Path, other: str, priority: int) -> None:
        """As the README says: both files, and this host's values in site.conf."""
        shutil.copytree(DEPLOY / "keepalived", folder)
        self._folder = folder
        values = {"ROUTER": self.host, "INTERFACE": "eth0", "OWN_ADDRESS": self.lan.addresses[self.host]}
        values |= {"OTHER_ADDRESS": self.lan.addresses[other], "SHARED_ADDRESS": f"{SHARED}/24"}
        values |= {"PRIORITY": str(priority)}
        text = (folder / "site.conf").read_text()
        for name, value in values.items():
            text, count = re.subn(rf"^\${name}=.*$", f"${name}={value}", text, flags=re.M)
            assert count == 1, name
        (folder / "site.conf").write_text(text)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    need_root()
    need("nginx", "keepalived", "curl", "ip")
    with Lan("lb1", "lb2", "app", "client") as lan:
        yield lan


@pytest.fixture(scope="module")
def pair(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Balancer, Balancer]]:
    with contextlib.ExitStack() as stack:
        settings = {"host": lan.addresses["app"], "allow_anonymous": True, "trusted_proxies": "10.97.0.0/24"}
        folder = tmp_path_factory.mktemp("app")
        daemon = stack.enter_context(Daemon(folder=folder, netns=lan.names["app"], metrics_port=0, **settings))
        balancers = []
        for host, other, priority in (("lb1", "lb2", 150), ("lb2", "lb1", 100)):
            folder = tmp_path_factory.mktemp(host)
            balancer = Balancer(lan, host, other, priority, folder, [daemon.address])
            stack.callback(balancer.close)
            balancers.append(balancer)
        yield balancers[0], balancers[1]


@pytest.fixture
def settled(pair: tuple[Balancer, Balancer]) -> tuple[Balancer, Balancer]:
    first, second = pair
    eventually(lambda: first.has_address() and not second.has_address(), what="the first is master")
    return pair


@contextlib.contextmanager
def watched(lan: Lan, first: Balancer) -> Iterator[Traffic]:
    """Requests to the shared address from another host; each may take a second at the most."""
    ca = first.edge.cafile.parent / "both.pem"
    with Traffic(
        f"https://{NAME}",
        rate=20,
        cafile=ca,
        keepalive=False,
        echoes=True,
        timeout_s=1.0,
        netns=lan.names["client"],
        addresses={NAME: SHARED},
    ) as traffic:
        traffic.wait_for(10)
        yield traffic


@pytest.fixture(autouse=True)
def both_certificates(pair: tuple[Balancer, Balancer]) -> None:
    """Each made its own; the client knows both."""
    both = "".join(balancer.edge.cafile.read_text() for balancer in pair)
    pair[0].edge.cafile.with_name("both.pem").write_text(both)


def longest_gap(traffic: Traffic) -> float:
    """The longest time between two answers."""
    ends = sorted(o.began_at + o.latency_s for o in traffic.outcomes if o.status == 200)
    return max(b - a for a, b in itertools.pairwise(ends))


def test_a_master_that_loses_its_power_is_replaced(lan: Lan, settled: tuple[Balancer, Balancer]) -> None:
    first, second = settled
    with watched(lan, first) as traffic:
        lan.unplug("lb1")
        eventually(second.has_address, what="the second takes over")
        traffic.wait_for(20)
        lan.plug("lb1")
        eventually(lambda: first.has_address() and not second.has_address(), what="the first takes it back")
        traffic.wait_for(20)
    assert longest_gap(traffic) < WITHIN_S, traffic.report()
    print(f"address moved: longest gap {longest_gap(traffic):.2f} s")  # noqa: T201


def test_a_master_that_alone_reaches_no_daemon_gives_the_address_up(
    lan: Lan, settled: tuple[Balancer, Balancer]
) -> None:
    first, second = settled
    route = ("ip", "route", "{}", "blackhole", f"{lan.addresses['app']}/32")
    lan.run("lb1", *(word.format("add") for word in route))
    eventually(lambda: second.has_address() and not first.has_address(), what="the second takes over")
    lan.run("lb1", *(word.format("del") for word in route))
    eventually(lambda: first.has_address() and not second.has_address(), what="the first takes it back")


def test_a_master_whose_nginx_dies_gives_the_address_up(lan: Lan, settled: tuple[Balancer, Balancer]) -> None:
    first, second = settled
    with watched(lan, first) as traffic:
        first.edge.kill()
        eventually(lambda: second.has_address() and not first.has_address(), what="the second takes over")
        traffic.wait_for(20)
    assert longest_gap(traffic) < WITHIN_S, traffic.report()
    print(f"nginx died: longest gap {longest_gap(traffic):.2f} s")  # noqa: T201
