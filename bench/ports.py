"""Ports for servers that are told theirs: nobody else's, from the asking until this process ends.

A port that the kernel gave out (`bind` to 0) and that was let go is anybody's again, also the same server's other
socket's. These lie outside the range that it gives out from, and who takes one says so to all others who ask here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FIRST = 10_000
_GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A TCP port on which nobody listens. Raises RuntimeError when none is left."""
    for port in _ports:
        if _is_free(port) and _is_taken(port):
            return port
    raise RuntimeError("no port is left")


def _candidates() -> Iterator[int]:
    """Each port once, beginning at another one in each process."""
    last = int(_GIVEN_OUT.read_text().split()[0])
    count = last - _FIRST if last > 2 * _FIRST else 2 * _FIRST
    for number in range(count):
        yield _FIRST + (os.getpid() * 101 + number) % count


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.socket() as probe:
        probe.bind(("0.0.0.0", port))
        return True
    return False


def _is_taken(port: int) -> bool:
    """Whether it is ours now. The kernel lets go of the name when this process is gone."""
    flag = socket.socket(socket.AF_UNIX)
    try:
        flag.bind(f"\0nllbd port {port}")
    except OSError:
        flag.close()
        return False
    flag.detach()  # it stays open, and nothing closes it before the end
    return True


_ports = _candidates()
