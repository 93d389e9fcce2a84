"""The guide's firewall script, run as it stands there: what each of its mistakes does."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.ops.firewall.network import ADMIN, INSIDE, STRANGER, Network
from tests.ops.kit.programs import need

pytestmark = pytest.mark.ops

FLUSH = """
iptables -F
iptables -X
iptables -t nat -F
iptables -t nat -X
"""
POLICIES = """
iptables -P INPUT DROP
iptables -P FORWARD DROP
iptables -P OUTPUT ACCEPT
"""
ACCEPTS = """
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -s 192.168.1.0/24 -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -s 10.0.0.0/8 -j ACCEPT
iptables -A INPUT -p tcp --dport 80 -j ACCEPT
iptables -A INPUT -p tcp --dport 443 -j ACCEPT
iptables -A INPUT -p tcp --dport 8000 -s 10.0.0.0/8 -j ACCEPT
iptables -A INPUT -p tcp --dport 9090 -s 10.0.0.0/8 -j ACCEPT
iptables -A INPUT -p tcp --dport 6379 -s 10.0.0.0/8 -j ACCEPT
"""
BLACKLIST = "iptables -A INPUT -m recent --name blacklist --set -j DROP\n"
SSH_LIMIT = """
iptables -A INPUT -p tcp --dport 22 -m state --state NEW -m recent --set
iptables -A INPUT -p tcp --dport 22 -m state --state NEW -m recent --update --seconds 60 --hitcount 4 -j DROP
"""
GUIDE = FLUSH + POLICIES + ACCEPTS + BLACKLIST + SSH_LIMIT


@pytest.fixture(autouse=True)
def needs_iptables() -> None:
    need("iptables")


def run_script(network: Network, text: str) -> None:
    network.run("bash", "-euo", "pipefail", "-c", text)


def test_the_blacklist_rule_drops_every_packet(network: Network) -> None:
    """`--set` without a check matches everything; nobody has to be on a list. No rule after it is ever reached."""
    network.listen([443, 9000])
    run_script(network, BLACKLIST)
    assert network.probe(STRANGER[4], [443]) == {443: "dropped"}  # a first visitor
    run_script(network, GUIDE + "iptables -A INPUT -p tcp --dport 9000 -s 10.0.0.0/8 -j ACCEPT")
    assert network.probe(INSIDE[4], [9000]) == {9000: "dropped"}


def test_the_ssh_limit_stands_after_the_accept(network: Network) -> None:
    """Thirty tries a second, and its rules have not seen one packet."""
    network.listen([22])
    run_script(network, GUIDE)
    tried = Counter(outcome for _, outcome in network.connect([(ADMIN[4], 22)] * 30))
    assert tried == {"open": 30}
    counted = network.run("iptables", "-nvxL", "INPUT").stdout.splitlines()
    assert [line.split()[0] for line in counted if "recent: UPDATE" in line] == ["0"]


def test_flushing_before_the_policy_opens_or_shuts_everything(network: Network) -> None:
    """The first time the host is open between the lines; the second time (or when a later line fails) it is shut,
    for the operator's ssh too."""
    network.listen([22, 5432])
    run_script(network, "iptables -A INPUT -p tcp --dport 5432 -j DROP")
    assert network.probe(STRANGER[4], [5432]) == {5432: "dropped"}
    run_script(network, FLUSH)
    assert network.probe(STRANGER[4], [5432]) == {5432: "open"}
    run_script(network, GUIDE)
    assert network.probe(ADMIN[4], [22]) == {22: "open"}
    run_script(network, FLUSH)  # the same script once more, stopped after its first lines
    assert network.probe(ADMIN[4], [22]) == {22: "dropped"}


def test_metrics_and_database_are_closed(network: Network) -> None:
    """The guide's own Prometheus scrapes 9000, and its daemons use 5432."""
    network.listen([8000, 9000, 5432])
    run_script(network, GUIDE)
    assert network.probe(INSIDE[4], [8000, 9000, 5432]) == {8000: "open", 9000: "dropped", 5432: "dropped"}


def test_ipv6_is_forgotten(network: Network) -> None:
    network.listen([22, 5432, 6379])
    run_script(network, GUIDE)
    assert set(network.probe(STRANGER[4], [22, 5432, 6379]).values()) == {"dropped"}
    assert set(network.probe(STRANGER[6], [22, 5432, 6379]).values()) == {"open"}
