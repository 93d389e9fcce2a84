"""The firewall as files for iptables-restore and ip6tables-restore."""

from __future__ import annotations

from collections.abc import Iterator

from source import SSH, Firewall

MAX_PORTS = 15  # of one multiport match; a range counts twice


def render(firewall: Firewall, version: int) -> Iterator[str]:
    """The filter table of one family for iptables-restore, which replaces it in one go, policies and all."""
    command = "iptables" if version == 4 else "ip6tables"
    limits = firewall.limits
    yield f"# Written by `render {command}`: edit firewall.toml and networks/, then `apply --form iptables`."
    yield "*filter"
    yield ":INPUT DROP [0:0]"
    yield f":FORWARD {'DROP' if firewall.drops_forward else 'ACCEPT'} [0:0]"
    yield ":OUTPUT ACCEPT [0:0]"
    yield from (f":nllbd-{name} - [0:0]" for name in ("icmp", "ssh", "public", "internal", "admin"))
    yield "-A INPUT -i lo -j ACCEPT"
    for network in firewall.of("blocked", version):
        yield f"-A INPUT -s {network} -j DROP"
    yield f"-A INPUT -p {'icmp' if version == 4 else 'icmpv6'} -j nllbd-icmp"
    yield "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    yield "-A INPUT -m conntrack --ctstate INVALID -j DROP"
    if version == 6:
        yield "-A INPUT -s fe80::/10 -p udp --dport 546 -j ACCEPT"
    if firewall.ssh_sources():
        yield f"-A INPUT -p tcp --dport {SSH} -j nllbd-ssh"
    for source in ("internal", "admin"):
        yield from (f"-A INPUT -s {network} -j nllbd-{source}" for network in firewall.of(source, version))
    yield "-A INPUT -j nllbd-public"
    rate = f"{limits['log_per_minute']}/minute"
    yield f'-A INPUT -m limit --limit {rate} --limit-burst 5 -j LOG --log-prefix "nllbd refused: "'
    yield from _icmp(version, limits["ping_per_second"])
    yield from _ssh(firewall, version)
    yield from _public(firewall, version)
    for source in ("internal", "admin"):
        yield from _accepts(firewall, source, ("tcp", "udp"))
    yield "COMMIT"


def _icmp(version: int, ping: int) -> Iterator[str]:
    match = "-p icmp --icmp-type" if version == 4 else "-p icmpv6 --icmpv6-type"
    yield f"-A nllbd-icmp {match} echo-request -m limit --limit {ping}/second -j ACCEPT"
    yield f"-A nllbd-icmp {match} echo-request -j DROP"
    yield "-A nllbd-icmp -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    kinds = ["destination-unreachable", "time-exceeded", "parameter-problem"]
    if version == 6:
        kinds.append("packet-too-big")
    yield from (f"-A nllbd-icmp {match} {kind} -j ACCEPT" for kind in kinds)
    if version == 6:
        for kind in ("router-advertisement", "neighbour-solicitation", "neighbour-advertisement", "redirect"):
            yield f"-A nllbd-icmp {match} {kind} -m hl --hl-eq 255 -j ACCEPT"
        yield from (f"-A nllbd-icmp -s fe80::/10 {match} {kind} -j ACCEPT" for kind in (130, 131, 132))
    yield "-A nllbd-icmp -j DROP"


def _rate(name: str, rate: str, burst: int, version: int) -> str:
    mask = 32 if version == 4 else 64
    return (
        f"-m conntrack --ctstate NEW -m hashlimit --hashlimit-name nllbd-{name} --hashlimit-mode srcip "
        f"--hashlimit-srcmask {mask} --hashlimit-above {rate} --hashlimit-burst {burst} "
        "--hashlimit-htable-expire 120000 -j DROP"
    )


def _ssh(firewall: Firewall, version: int) -> Iterator[str]:
    limits = firewall.limits
    rate = _rate("ssh", f"{limits['ssh_per_minute']}/minute", limits["ssh_burst"], version)
    yield f"-A nllbd-ssh {rate}"
    for source in firewall.ssh_sources():
        if source == "public":
            yield "-A nllbd-ssh -j ACCEPT"
        else:
            yield from (f"-A nllbd-ssh -s {network} -j ACCEPT" for network in firewall.of(source, version))
    yield "-A nllbd-ssh -j DROP"


def _public(firewall: Firewall, version: int) -> Iterator[str]:
    limits = firewall.limits
    mask = 32 if version == 4 else 64
    rate = _rate("syn", f"{limits['syn_per_second']}/second", limits["syn_burst"], version)
    for ports in _multiports(firewall.ports("public", "tcp")):
        match = f"-p tcp -m multiport --dports {ports}"
        for network in firewall.of("proxies", version):
            yield f"-A nllbd-public -s {network} {match} -j ACCEPT"
        yield f"-A nllbd-public {match} {rate}"
        limit = f"--connlimit-above {limits['connections']} --connlimit-mask {mask}"
        yield f"-A nllbd-public {match} -m conntrack --ctstate NEW -m connlimit {limit} -j DROP"
        yield f"-A nllbd-public {match} -j ACCEPT"
    yield from _accepts(firewall, "public", ("udp",))


def _accepts(firewall: Firewall, source: str, kinds: tuple[str, ...]) -> Iterator[str]:
    for kind in kinds:
        for ports in _multiports(firewall.ports(source, kind)):
            yield f"-A nllbd-{source} -p {kind} -m multiport --dports {ports} -j ACCEPT"
    yield from (f"-A nllbd-{source} -p {protocol} -j ACCEPT" for protocol in firewall.protocols(source))


def _multiports(ports: tuple[str, ...]) -> Iterator[str]:
    """As many ports in a match as it takes."""
    group: list[str] = []
    size = 0
    for port in ports:
        weight = 2 if "-" in port else 1
        if size + weight > MAX_PORTS:
            yield ",".join(group)
            group, size = [], 0
        group.append(port.replace("-", ":"))
        size += weight
    if group:
        yield ",".join(group)
