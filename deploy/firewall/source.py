"""What the firewall is made of: firewall.toml and the lists in networks/, read and checked."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = ("public", "admin", "internal")
LISTS = ("admin", "internal", "proxies", "blocked")
LIMITS = {
    "syn_per_second": 50,
    "syn_burst": 200,
    "connections": 200,
    "ssh_per_minute": 6,
    "ssh_burst": 6,
    "ping_per_second": 10,
    "log_per_minute": 10,
}
SSH = 22

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """What is wrong with the source, for the operator."""


@dataclass(frozen=True)
class Service:
    """Ports (as `80` or `8000-8007`) or an IP protocol, and who may reach it."""

    name: str
    sources: tuple[str, ...]
    tcp: tuple[str, ...] = ()
    udp: tuple[str, ...] = ()
    protocol: int | None = None


@dataclass(frozen=True)
class Firewall:
    """The source, checked."""

    services: tuple[Service, ...]
    limits: dict[str, int]
    networks: dict[str, tuple[Network, ...]]
    drops_forward: bool

    def of(self, name: str, version: int) -> list[Network]:
        """The networks of a list that have this IP version, without overlaps."""
        found = [network for network in self.networks[name] if network.version == version]
        return list(ipaddress.collapse_addresses(found))  # type: ignore[type-var]

    def ports(self, source: str, kind: str) -> tuple[str, ...]:
        """All ports that are open to a source; ssh has rules of its own."""
        found = [port for service in self.services if source in service.sources for port in getattr(service, kind)]
        return tuple(port for port in dict.fromkeys(found) if (kind, port) != ("tcp", str(SSH)))

    def protocols(self, source: str) -> tuple[int, ...]:
        return tuple(
            service.protocol for service in self.services if source in service.sources and service.protocol is not None
        )

    def contains(self, name: str, address: str) -> bool:
        """Whether a list has this address."""
        found = ipaddress.ip_address(address)
        return any(found in network for network in self.networks[name] if network.version == found.version)

    def lets_in_by_ssh(self, address: str) -> bool:
        """Whether who calls from this address could log in."""
        if self.contains("blocked", address):
            return False
        sources = self.ssh_sources() or ("admin",)
        return any(source == "public" or self.contains(source, address) for source in sources)

    def ssh_sources(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for service in self.services if str(SSH) in service.tcp for name in service.sources)
        )


def read(folder: Path) -> Firewall:
    """Read and check the source. Raises Refused."""
    try:
        table = tomllib.loads((folder / "firewall.toml").read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{folder}/firewall.toml: {error}") from None
    unknown = set(table) - {"roles", "forward", "limits", "services"}
    if unknown:
        raise Refused(f"firewall.toml: unknown: {', '.join(sorted(unknown))}")
    roles = table.get("roles", [])
    every = [(_service(row), row.get("role")) for row in table.get("services", [])]  # mistakes count in all of them
    services = tuple(service for service, role in every if role in (None, *roles))
    known = {row.get("role") for row in table.get("services", [])}
    if strange := set(roles) - known:
        raise Refused(f"roles: no service has the role {', '.join(sorted(strange))}")
    if table.get("forward") not in ("drop", "leave"):
        raise Refused('forward: "drop" or "leave"')
    networks = {name: tuple(_networks(folder / "networks" / name)) for name in LISTS}
    firewall = Firewall(services, _limits(table.get("limits", {})), networks, table["forward"] == "drop")
    if firewall.ssh_sources() == ("admin",) and not networks["admin"]:
        raise Refused("networks/admin is empty: nobody could come in by ssh")
    return firewall


def _service(row: dict[str, Any]) -> Service:
    name = row.get("name", "")
    if not name or set(row) - {"name", "role", "tcp", "udp", "protocol", "from"}:
        raise Refused(f"firewall.toml: service {row}: give name, from, and tcp, udp or protocol")
    sources = row.get("from", ())
    sources = (sources,) if isinstance(sources, str) else tuple(sources)
    if not sources or set(sources) - set(SOURCES):
        raise Refused(f"service {name!r}: from is one or more of {', '.join(SOURCES)}")
    ports = {kind: tuple(_port(name, port) for port in row.get(kind, ())) for kind in ("tcp", "udp")}
    return Service(name, sources, **ports, protocol=row.get("protocol"))


def _port(name: str, port: int | str) -> str:
    numbers = str(port).split("-")
    if len(numbers) > 2 or not all(number.isdecimal() and 0 < int(number) < 65536 for number in numbers):
        raise Refused(f"service {name!r}: {port!r} is no port and no range of ports")
    return str(port)


def _limits(given: dict[str, Any]) -> dict[str, int]:
    if unknown := set(given) - set(LIMITS):
        raise Refused(f"limits: unknown: {', '.join(sorted(unknown))}")
    for name, value in given.items():
        if type(value) is not int or value < 1:
            raise Refused(f"limits: {name} is a number from 1")
    return {**LIMITS, **given}


def _networks(path: Path) -> Iterator[Network]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if text := line.split("#")[0].strip():
            try:
                yield ipaddress.ip_network(text)
            except ValueError as error:
                raise Refused(f"{path}:{number}: {error}") from None
