"""Runs inside the unit's sandbox (ExecStartPost=) and tries what a daemon that was taken over would try.

Writes what came of each attempt, as JSON, to the file given.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "refused")


def _attempts() -> dict[str, Callable[[], object]]:
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "write /usr": lambda: Path("/usr/probe").write_text("x"),
        "write /etc": lambda: Path("/etc/nllbd/probe").write_text("x"),
        "write the release": lambda: Path("/opt/nllbd/current/probe").write_text("x"),
        "write a sysctl": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
        "read /root": lambda: os.listdir("/root"),
        "read the secrets of others": lambda: os.listdir("/etc/nllbd/credentials"),
        "see the block devices": lambda: Path("/dev/vda").stat(),
        "see PID 1": lambda: Path("/proc/1").stat(),
        "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "make a namespace": lambda: _call(libc.unshare, _CLONE_NEWUSER),
        "mount": lambda: _call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None),
        "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "load a module": lambda: _call(libc.syscall, 175, None, 0, b""),
        "become root": lambda: os.setuid(0),
        "make a program that runs as its owner": _make_setuid,
        "get realtime scheduling": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "raise its own limits": lambda: _call(libc.nice, -5),
        "write state": lambda: Path(os.environ["STATE_DIRECTORY"], "probe").write_text("x"),
        "write cache": lambda: Path(os.environ["CACHE_DIRECTORY"], "probe").write_text("x"),
        "write /tmp": lambda: Path("/tmp/probe").write_text("x"),
        "run generated code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "pin a thread": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
        "know its limits": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
        "know the memory": lambda: Path("/proc/meminfo").read_text(),
    }


def _make_setuid() -> None:
    path = Path("/tmp/setuid")
    path.touch()
    path.chmod(0o4755)


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (OSError, FileNotFoundError) as error:
        return f"refused: {error}"
    return "done"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({name: _outcome(attempt) for name, attempt in _attempts().items()}))
