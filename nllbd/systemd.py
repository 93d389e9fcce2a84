"""systemd's two small protocols, in our own words: sd_notify (datagrams to $NOTIFY_SOCKET) and socket activation.

Follows sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3). Knows nothing of what is served.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from nllbd.errors import ConfigError

_FIRST_FD = 3
_MAX_STATUS_CHARS = 500


class Notifier:
    """Tells the service manager how we are. Without one, every call does nothing."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        #: How often systemd wants to hear `watchdog()` at the least, in seconds; None = not at all.
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET") or None
        watchdog_s = None
        with contextlib.suppress(ValueError):
            addressed_to = int(environ.get("WATCHDOG_PID") or os.getpid())
            interval_us = int(environ.get("WATCHDOG_USEC", ""))
            if interval_us > 0 and addressed_to == os.getpid():
                watchdog_s = interval_us / 1e6
        return cls(address, watchdog_s)

    @property
    def enabled(self) -> bool:
        return self._address is not None

    def ready(self, status: str = "") -> None:
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(text))

    def reloading(self) -> None:
        """Say `ready` when it is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", _status(status))

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for that much more time for the start, stop or reload at hand."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        name = self._address
        target = "\0" + name[1:] if name.startswith("@") else name  # "@" stands for the abstract namespace
        message = "\n".join(filter(None, lines)).encode()
        with contextlib.suppress(OSError):  # a manager that does not listen is no reason to fail, nor to wait
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message, target)


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A listening socket that we were started with, and its FileDescriptorName= (empty if it has none)."""

    name: str
    socket: socket.socket


def inherit_sockets(environ: MutableMapping[str, str]) -> list[InheritedSocket]:
    """Adopt the sockets of LISTEN_FDS; takes the variables out of `environ`, so that no child adopts them again.

    Raises ConfigError when one is not a listening stream socket.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] != "unknown" else ""
        sockets.append(InheritedSocket(name, _adopt(_FIRST_FD + index)))
    return sockets


def _adopt(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        adopted = socket.socket(fileno=fd)
        listens = adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {fd} is not a socket: {error.strerror}") from None
    if not listens or adopted.type != socket.SOCK_STREAM:
        raise ConfigError(
            f"LISTEN_FDS: descriptor {fd} is not a listening stream socket; use ListenStream= and Accept=no"
        )
    adopted.setblocking(False)
    return adopted


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARS]}" if text else ""
