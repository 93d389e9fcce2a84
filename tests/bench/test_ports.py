"""Ports that are asked for: nobody else gets them, neither from the kernel nor from here."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench import ports
from bench.ports import free_port

ROOT = Path(__file__).parents[2]


def test_each_asks_for_one_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also another process that begins at the same place."""
    mine = [free_port() for _ in range(20)]
    code = f"from bench import ports; ports._ports = iter(range({min(mine)}, {min(mine)} + 1000))\n"
    code += "print([ports.free_port() for _ in range(20)])"
    theirs = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len({*mine, *map(int, theirs.strip("[]\n").split(","))}) == 40
    monkeypatch.setattr(ports, "_ports", iter(mine))
    with pytest.raises(RuntimeError, match="no port"):
        free_port()


def test_not_one_that_the_kernel_gives_out_or_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_port() < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(ports, "_ports", iter([taken.getsockname()[1]]))
        with pytest.raises(RuntimeError, match="no port"):
            free_port()
