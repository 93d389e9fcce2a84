"""Floods are stopped at their source, and nobody else notices."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.ops.firewall.network import ADMIN, OTHER, STRANGER, Network

pytestmark = pytest.mark.ops

FORMS = pytest.mark.parametrize("form", ["nft", "iptables"])
#: In the same /64 as STRANGER[6].
NEIGHBOUR = "2001:db8:0:1::9"


def set_limits(source: Path, **limits: int) -> None:
    file = source / "firewall.toml"
    lines = file.read_text("utf-8").splitlines()
    for name, value in limits.items():
        lines = [f"{name} = {value}" if line.startswith(f"{name} ") else line for line in lines]
        assert f"{name} = {value}" in lines
    file.write_text("\n".join(lines) + "\n", "utf-8")


def opened(network: Network, source: str, port: int, count: int, *, hold: bool = False) -> int:
    outcomes = network.connect([(source, port)] * count, hold=hold)  # a SYN is sent again only after a second
    counted = Counter(outcome for _, outcome in outcomes)
    assert set(counted) <= {"open", "dropped"}
    return counted["open"]


@FORMS
def test_a_flood_of_new_connections_is_cut_to_the_limit(network: Network, source: Path, form: str) -> None:
    set_limits(source, syn_per_second=5, syn_burst=20)
    network.listen([443])
    network.load(form)
    for version in (4, 6):
        began = time.monotonic()
        got_through = opened(network, STRANGER[version], 443, 200)
        assert 20 <= got_through <= 22 + 5 * (time.monotonic() - began)
        assert opened(network, OTHER[version], 443, 10) == 10  # a source's limit is its own
    assert opened(network, NEIGHBOUR, 443, 20) < 15  # and of its whole /64


@FORMS
def test_a_source_has_only_so_many_connections_at_once(network: Network, source: Path, form: str) -> None:
    set_limits(source, connections=15)
    network.listen([80, 443])
    network.load(form)
    for version in (4, 6):
        assert opened(network, STRANGER[version], 443, 40, hold=True) == 15
        assert opened(network, STRANGER[version], 80, 5) == 0  # all public services together
        assert opened(network, OTHER[version], 443, 10) == 10
    network.release()
    for version in (4, 6):
        assert opened(network, STRANGER[version], 443, 10) == 10


@FORMS
def test_what_comes_through_a_proxy_has_no_limit(network: Network, source: Path, form: str) -> None:
    set_limits(source, syn_per_second=5, syn_burst=20, connections=15)
    (source / "networks/proxies").write_text("203.0.113.8  # the CDN\n2001:db8:0:2::/64\n", "utf-8")
    network.listen([443])
    network.load(form)
    assert [opened(network, OTHER[version], 443, 100) for version in (4, 6)] == [100, 100]


@FORMS
def test_ssh_is_limited_before_it_is_accepted(network: Network, source: Path, form: str) -> None:
    """Also for administrators: their networks are where a stolen laptop would try passwords from."""
    network.listen([22, 443])
    network.load(form)
    assert 6 <= opened(network, ADMIN[4], 22, 20, hold=True) <= 7
    assert opened(network, "10.0.0.5", 22, 3) == 3
    assert opened(network, ADMIN[4], 443, 5) == 5


@FORMS
def test_with_the_shipped_limits_a_browser_never_meets_them(network: Network, form: str) -> None:
    network.listen([443])
    network.load(form)
    for version in (4, 6):
        assert opened(network, STRANGER[version], 443, 60) == 60
