"""The sockets that the daemon listens on: bound by itself or inherited, and whether strangers can reach them.

Binding comes first in the daemon's life, before anything slow, so that a taken port is known at once. Judges the real
sockets, never the settings alone: an inherited one may listen anywhere. Accepts nothing itself.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from nllbd.errors import ConfigError
from nllbd.systemd import InheritedSocket

_UNIX = "unix:"
_HTTP, _METRICS = "http", "metrics"


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One listening socket. An inherited one belongs to whoever holds its other descriptor: it is only borrowed.

    Attributes:
        url: `http://host:port`, or `unix:/path`.
        is_private: only this machine can connect.
    """

    sock: socket.socket
    is_inherited: bool
    url: str
    is_private: bool

    @classmethod
    def of(cls, sock: socket.socket, is_inherited: bool = False) -> Listener:
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            path = os.fsdecode(name) if isinstance(name, bytes) else str(name)
            return cls(sock, is_inherited, _UNIX + path.replace("\0", "@"), True)
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return cls(sock, is_inherited, f"http://{host}:{name[1]}", _is_loopback(name[0]))

    @property
    def unix_path(self) -> str | None:
        return self.url.removeprefix(_UNIX) if self.url.startswith(_UNIX) else None

    def close(self) -> None:
        """Close our descriptor if it is still open; a unix path of our own making disappears."""
        self.sock.close()
        if self.unix_path is not None and not self.is_inherited:
            Path(self.unix_path).unlink(missing_ok=True)


def _is_loopback(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def bind(host: str, port: int, purpose: str) -> list[Listener]:
    """Bind `unix:/path`, or every address of `host` (a name may have several) at one port; 0 = any free one.

    `purpose` is the prefix of the settings at fault in errors: empty, or `metrics_`.
    Raises ConfigError that says what is wrong with the address and what to do.
    """
    if host.startswith(_UNIX):
        return [Listener.of(_bind_unix(Path(host.removeprefix(_UNIX)), f"{purpose}host"))]
    sockets: list[socket.socket] = []
    try:
        for family, address in _resolve(host, port, purpose):
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_bind_tcp(family, (address, chosen), purpose))
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return [Listener.of(opened) for opened in sockets]


def sort_inherited(inherited: Sequence[InheritedSocket]) -> tuple[list[Listener], list[Listener]]:
    """(http, metrics): by the names `http` and `metrics`, else by order, first http, then metrics.

    Raises ConfigError when it cannot be told which is which.
    """
    named: dict[str, list[Listener]] = {_HTTP: [], _METRICS: []}
    others: list[Listener] = []
    for item in inherited:
        named.get(item.name, others).append(Listener.of(item.socket, is_inherited=True))
    if not others:
        return named[_HTTP], named[_METRICS]
    if named[_HTTP] or named[_METRICS] or len(others) > 2:
        raise ConfigError(
            f"{len(inherited)} sockets were inherited and not all are named: "
            "give each FileDescriptorName=http or FileDescriptorName=metrics"
        )
    return others[:1], others[1:]


def check_exposure(listeners: Iterable[Listener], has_credentials: bool, allow_anonymous: bool) -> None:
    """Raise ConfigError if strangers could reach a server that asks nobody for credentials."""
    exposed = [listener.url for listener in listeners if not listener.is_private]
    if exposed and not has_credentials and not allow_anonymous:
        raise ConfigError(
            f"{', '.join(exposed)} can be reached from other machines and no credentials are set: "
            "set api_key, store a key (`nllbd keys create`), listen on 127.0.0.1, or set allow_anonymous if that is "
            "meant",
            field="allow_anonymous",
        )


def _resolve(host: str, port: int, purpose: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(
            None if host in {"*", ""} else host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:  # the latter for what cannot even be asked for
        raise ConfigError(f"{purpose}host: {host!r} is no address of this machine: {error}") from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind_tcp(family: socket.AddressFamily, address: tuple[str, int], purpose: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen()  # only this tells for sure: with SO_REUSEADDR two may bind, one may listen
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _refusal(error, address, purpose) from None
    return sock


def _refusal(error: OSError, address: tuple[str, int], purpose: str) -> ConfigError:
    host, port = address
    remedies = {
        errno.EADDRINUSE: f"port {port} of {host} is taken by another program: stop it or change {purpose}port",
        errno.EACCES: f"port {port} needs privileges; choose a {purpose}port of 1024 or more",
        errno.EADDRNOTAVAIL: f"{host} is no address of this machine; choose another {purpose}host",
    }
    message = remedies.get(error.errno or 0, f"cannot listen on {host} port {port}: {error.strerror}")
    refusal = ConfigError(message, field=f"{purpose}port")
    refusal.may_pass = error.errno == errno.EADDRNOTAVAIL
    return refusal


def _bind_unix(path: Path, field: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path, field)
        sock.bind(str(path))
        sock.listen()
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {_UNIX}{path}: {error.strerror or error}", field=field) from None
    except ConfigError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path, field: str) -> None:
    """A path left behind by a daemon that was killed goes away; one that somebody answers on, or a file, stays."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ConfigError(f"{path} exists and is not a socket; remove it or choose another {field}", field=field)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise ConfigError(f"{path} is taken by another program; stop it, or choose another {field}", field=field)
