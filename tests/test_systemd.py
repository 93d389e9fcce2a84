"""sd_notify against a real datagram socket, socket activation against real descriptors in a real process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nllbd.systemd import Notifier

ADOPT = """
import os, sys
from nllbd.errors import ConfigError
from nllbd.systemd import inherit_sockets
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "me" else sys.argv[1]
try:
    found = inherit_sockets(os.environ)
except ConfigError as error:
    sys.exit(f"refused: {error}")
for item in found:
    print(item.name or "-", item.socket.family.name, os.get_inheritable(item.socket.fileno()), item.socket.gettimeout())
print("left", sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path):
    """A listening NOTIFY_SOCKET and its address as systemd would write it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.settimeout(5)
    name = str(tmp_path / "notify") if request.param == "path" else f"@nllbd-test-{os.getpid()}-{time.monotonic_ns()}"
    listener.bind("\0" + name[1:] if name.startswith("@") else name)
    with listener:
        yield listener, name


def test_every_message(manager: tuple[socket.socket, str]) -> None:
    listener, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    assert notifier.enabled
    notifier.extend_timeout(2.5)
    notifier.ready("serving\n  demo")
    notifier.status("busy")
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()
    received = [listener.recv(4096).decode() for _ in range(6)]
    assert received[:3] == ["EXTEND_TIMEOUT_USEC=2500000", "READY=1\nSTATUS=serving demo", "STATUS=busy"]
    reloading, stamp = received[3].split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert received[4:] == ["WATCHDOG=1", "STOPPING=1"]
    notifier.close()


def test_a_manager_that_is_away_or_never_was_costs_nothing(tmp_path: Path) -> None:
    Notifier(None).ready()
    Notifier(str(tmp_path / "nobody")).ready()
    assert not Notifier.from_environment({}).enabled


def test_a_manager_that_does_not_read_never_blocks_us(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    notifier = Notifier(address)
    for _ in range(2000):
        notifier.status("x" * 400)
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], expected: float | None) -> None:
    assert Notifier.from_environment(environ).watchdog_s == expected


def adopt(fds: list[int], pid: str = "me", names: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ADOPT in a process whose descriptors 3… are `fds`."""
    moves = "; ".join(f"exec {3 + index}<&{fd}" for index, fd in enumerate(fds)) or ":"
    command = ["bash", "-c", f'{moves}; exec "$@"', "-", sys.executable, "-c", ADOPT, pid]
    environ = {**os.environ, "LISTEN_FDS": str(len(fds)), "PYTHONPATH": str(Path(__file__).parents[1])}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    return subprocess.run(command, pass_fds=fds, env=environ, capture_output=True, text=True, timeout=30, check=False)


def high(sock: socket.socket) -> int:
    """A duplicate far from the descriptors that are about to be replaced."""
    import fcntl

    return fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 50)


def test_adopts_tcp_and_unix_sockets_by_name(tmp_path: Path) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        done = adopt([high(tcp), high(unix)], names="http:metrics")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["http AF_INET False 0.0", "metrics AF_UNIX False 0.0", "left []"]


def test_without_names_or_for_another_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert adopt([high(tcp)]).stdout.splitlines() == ["- AF_INET False 0.0", "left []"]
        assert adopt([high(tcp)], names="unknown").stdout.startswith("- ")
        assert adopt([high(tcp)], pid="1").stdout.splitlines() == ["left []"]


def test_refuses_what_does_not_listen(tmp_path: Path) -> None:
    with socket.socket() as idle:
        assert "not a listening stream socket" in adopt([high(idle)]).stderr
    with (tmp_path / "file").open("w") as file:
        assert "not a socket" in adopt([os.dup(file.fileno())]).stderr
