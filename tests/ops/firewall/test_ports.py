"""The shipped rules, port by port: both forms, both families, from everywhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.ops.firewall.network import ADMIN, INSIDE, OTHER, SERVER, STRANGER, Network, within
from tests.ops.kit.programs import eventually

pytestmark = pytest.mark.ops

PUBLIC = {80, 443}
INTERNAL = {
    2049, 3100, 5432, 6379, 6380, 6432, 8000, 8009, 9000, 9009,
    9090, 9093, 9094, 9100, 9113, 9115, 9121, 9187, 9400, 26379,
}  # fmt: skip
ADMINS = {22, 3000}
NOBODY = {21, 25, 111, 7999, 8010, 8080, 8443, 9010, 9101, 5433, 11211}
EVERY = PUBLIC | INTERNAL | ADMINS | NOBODY


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_each_port_is_open_to_whom_it_is_for_and_dropped_for_the_others(network: Network, form: str) -> None:
    network.listen(EVERY)
    assert set(network.probe(STRANGER[4], EVERY).values()) == {
        "open"
    }  # the network works; what follows is the firewall
    network.load(form)
    open_to = dict.fromkeys(STRANGER.values(), PUBLIC)
    open_to |= dict.fromkeys(INSIDE.values(), PUBLIC | INTERNAL | ADMINS)
    open_to |= dict.fromkeys(ADMIN.values(), PUBLIC | ADMINS)
    for (address, port), outcome in network.connect((address, port) for address in open_to for port in EVERY):
        assert outcome == ("open" if port in open_to[address] else "dropped"), (address, port)


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_pings_errors_and_neighbours_are_heard(network: Network, form: str) -> None:
    network.load(form)
    for version in (4, 6):
        assert _echoes(network, STRANGER[version], 1) == 1
        # Neighbours were asked for on the way: without neighbour discovery there would be no IPv6 at all.
        assert 3 <= _echoes(network, STRANGER[version], 60) < 40


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_other_protocols_come_from_inside_only(network: Network, form: str) -> None:
    """keepalived's VRRP (IP protocol 112) and Alertmanager's gossip over UDP."""
    network.load(form)
    vrrp = within(network.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 112))
    gossip = within(network.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    gossip.bind(("", 9094))
    with vrrp, gossip:
        for source in (STRANGER[4], INSIDE[4]):  # in this order: what comes first would be the stranger's
            _send(network, socket.SOCK_RAW, 112, source, (SERVER[4], 0))
            _send(network, socket.SOCK_DGRAM, 0, source, (SERVER[4], 9094))
        for listener in (vrrp, gossip):
            listener.settimeout(5)
            assert listener.recvfrom(100)[1][0] == INSIDE[4]
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recv(100)


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_connections_that_are_open_stay_open(network: Network, source: Path, form: str) -> None:
    """The first rules of a host find connections that nobody has tracked so far: the operator's ssh is one. Later
    rules do not cut what they would refuse anew."""
    network.listen([22])
    (listener,) = (sock for sock in network._listeners if sock.family == socket.AF_INET)
    assert network.connect([(ADMIN[4], 22)], hold=True) == [((ADMIN[4], 22), "open")]
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(5)
        network.load(form)
        network._held[0].sendall(b"still here")
        assert accepted.recv(100) == b"still here"
        (source / "networks/admin").write_text("192.0.2.0/24\n", "utf-8")
        network.load(form)
        assert network.probe(ADMIN[4], [22]) == {22: "dropped"}
        network._held[0].sendall(b"and here")
        assert accepted.recv(100) == b"and here"


def test_what_was_dropped_is_counted_by_reason(network: Network, source: Path) -> None:
    network.listen([5432])
    network.load("nft")
    network.firewall("network", "add", "blocked", OTHER[4])
    network.probe(STRANGER[4], [5432])
    network.probe(OTHER[4], [443])
    counters = network.run("nft", "list", "counters", "table", "inet", "nllbd").stdout
    for name in ("refused", "blocked"):
        packets = counters.split(f"counter {name} {{")[1].split("packets ")[1].split()[0]
        assert int(packets) >= 1, counters


def _echoes(network: Network, source: str, count: int) -> int:
    """How many of `count` echo requests sent at once are answered."""
    version = 6 if ":" in source else 4
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if version == 6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    kind = 128 if version == 6 else 8
    sock = within(network.client, lambda: socket.socket(family, socket.SOCK_RAW, protocol))
    with sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        numbers = set()
        for number in range(count):
            sock.sendto(_echo_request(kind, number), (SERVER[version], 0))

        def answered() -> bool:
            while True:
                try:
                    packet = sock.recv(2000)
                except BlockingIOError:
                    return len(numbers) == count
                message = packet if version == 6 else packet[20:]
                if message[0] == (129 if version == 6 else 0):
                    numbers.add(message[6:8])

        if count == 1:
            eventually(answered, 5, "the answer to a ping")
        else:
            within_s = 0.5
            with pytest.raises(AssertionError):  # never all of them
                eventually(answered, within_s, "the answers to all pings")
        return len(numbers)


def _echo_request(kind: int, number: int) -> bytes:
    message = bytes([kind, 0, 0, 0, 0x4E, 0x4C]) + number.to_bytes(2, "big") + b"nllbd"
    if kind == 8:  # ICMPv6's checksum is the kernel's business
        padded = message + b"\0" * (len(message) % 2)
        total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        message = message[:2] + (~total & 0xFFFF).to_bytes(2, "big") + message[4:]
    return message


def _send(network: Network, kind: int, protocol: int, source: str, target: tuple[str, int]) -> None:
    with within(network.client, lambda: socket.socket(socket.AF_INET, kind, protocol)) as sock:
        sock.bind((source, 0))
        sock.sendto(b"hello", target)
