"""The firewall as an nftables table."""

from __future__ import annotations

from collections.abc import Iterator

from source import LISTS, SSH, Firewall, Network


def render(firewall: Firewall) -> Iterator[str]:
    """One table of our own, for both families, replaced in one transaction: there is no moment without it, and other
    tables (Docker's, fail2ban's) stay as they are."""
    yield "# Written by `render nft`: edit firewall.toml and networks/, then `apply`."
    yield "table inet nllbd"
    yield "delete table inet nllbd"
    yield "table inet nllbd {"
    for name in LISTS:
        for version in (4, 6):
            yield from _set(f"{name}{version}", version, firewall.of(name, version))
    for name in ("ssh_rate", "syn_rate", "connections"):
        yield from _meters(name)
    for name in ("blocked", "invalid", "ssh_limit", "ping_limit", "syn_limit", "connection_limit", "refused"):
        yield f"  counter {name} {{ }}"
    yield from _input(firewall)
    yield from _icmp(firewall.limits)
    yield from _ssh(firewall)
    yield from _public(firewall)
    for source in ("internal", "admin"):
        yield from _inside(firewall, source)
    if firewall.drops_forward:
        yield "  chain forward { type filter hook forward priority filter; policy drop; }"
    yield "}"


def _set(name: str, version: int, networks: list[Network]) -> Iterator[str]:
    elements = f" elements = {{ {', '.join(map(str, networks))} }}" if networks else ""
    yield f"  set {name} {{ type ipv{version}_addr; flags interval; auto-merge;{elements} }}"


def _meters(name: str) -> Iterator[str]:
    """Sources under a limit. A full set lets the next source pass: SYN cookies are the second line."""
    timeout = "dynamic;" if name == "connections" else "dynamic, timeout; timeout 2m;"
    for version in (4, 6):
        yield f"  set {name}{version} {{ type ipv{version}_addr; size 65535; flags {timeout} }}"


def _input(firewall: Firewall) -> Iterator[str]:
    limits = firewall.limits
    yield "  chain input {"
    yield "    type filter hook input priority filter; policy drop;"
    yield '    iifname "lo" accept'
    yield "    ip saddr @blocked4 counter name blocked drop"
    yield "    ip6 saddr @blocked6 counter name blocked drop"
    yield "    meta l4proto { icmp, icmpv6 } jump check_icmp  # first: a flood of pings is one connection"
    yield "    ct state established,related accept"
    yield "    ct state invalid counter name invalid drop"
    yield "    ip6 saddr fe80::/10 udp dport 546 accept  # DHCPv6 answers"
    if firewall.ssh_sources():
        yield f"    tcp dport {SSH} jump check_ssh"
    for version, field in ((4, "ip"), (6, "ip6")):
        for source in ("internal", "admin"):
            yield f"    {field} saddr @{source}{version} jump from_{source}"
    yield "    jump from_public"
    yield f'    limit rate {limits["log_per_minute"]}/minute burst 5 packets log prefix "nllbd refused: "'
    yield "    counter name refused"
    yield "  }"


def _icmp(limits: dict[str, int]) -> Iterator[str]:
    yield "  chain check_icmp {"
    for family in ("icmp", "icmpv6"):
        yield f"    {family} type echo-request limit rate {limits['ping_per_second']}/second accept"
        yield f"    {family} type echo-request counter name ping_limit drop"
    yield "    ct state established,related accept"
    yield "    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"
    yield "    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept"
    yield "    # Neighbours and routers, who are on this link: nobody can forward a hop limit of 255."
    neighbours = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, nd-redirect"
    yield f"    icmpv6 type {{ {neighbours} }} ip6 hoplimit 255 accept"
    yield "    ip6 saddr fe80::/10 icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done } accept"
    yield "    counter name refused drop"
    yield "  }"


def _limit(name: str, version: int, condition: str, counter: str, where: str = "") -> str:
    source = "ip saddr" if version == 4 else "ip6 saddr and ffff:ffff:ffff:ffff::"
    guard = "meta nfproto ipv4 " if version == 4 else "meta nfproto ipv6 "
    return f"    {guard}{where}ct state new add @{name}{version} {{ {source} {condition} }} counter name {counter} drop"


def _ssh(firewall: Firewall) -> Iterator[str]:
    if not firewall.ssh_sources():
        return
    limits = firewall.limits
    rate = f"limit rate over {limits['ssh_per_minute']}/minute burst {limits['ssh_burst']} packets"
    yield "  chain check_ssh {"
    yield from (_limit("ssh_rate", version, rate, "ssh_limit") for version in (4, 6))
    for source in firewall.ssh_sources():
        if source == "public":
            yield "    accept"
        else:
            yield f"    ip saddr @{source}4 accept"
            yield f"    ip6 saddr @{source}6 accept"
    yield "    counter name refused drop"
    yield "  }"


def _public(firewall: Firewall) -> Iterator[str]:
    limits = firewall.limits
    rate = f"limit rate over {limits['syn_per_second']}/second burst {limits['syn_burst']} packets"
    count = f"ct count over {limits['connections']}"
    yield "  chain from_public {"
    if ports := firewall.ports("public", "tcp"):
        listed = ", ".join(ports)
        yield f"    ip saddr @proxies4 tcp dport {{ {listed} }} accept"
        yield f"    ip6 saddr @proxies6 tcp dport {{ {listed} }} accept"
        where = f"tcp dport {{ {listed} }} "
        yield from (_limit("syn_rate", version, rate, "syn_limit", where) for version in (4, 6))
        yield from (_limit("connections", version, count, "connection_limit", where) for version in (4, 6))
        yield f"    tcp dport {{ {listed} }} counter accept"
    yield from _accepts(firewall, "public", ("udp",))
    yield "  }"


def _inside(firewall: Firewall, source: str) -> Iterator[str]:
    yield f"  chain from_{source} {{"
    yield from _accepts(firewall, source, ("tcp", "udp"))
    yield "  }"


def _accepts(firewall: Firewall, source: str, kinds: tuple[str, ...]) -> Iterator[str]:
    for kind in kinds:
        if ports := firewall.ports(source, kind):
            yield f"    {kind} dport {{ {', '.join(ports)} }} counter accept"
    for protocol in firewall.protocols(source):
        yield f"    meta l4proto {protocol} counter accept"
