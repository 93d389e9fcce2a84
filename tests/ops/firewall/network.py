"""Two network namespaces, a server and its callers, and probes between them: what is open from where."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.ops.kit.programs import CHECKOUT
from tests.ops.kit.traffic import enter_netns

FIREWALL = CHECKOUT / "deploy/firewall"
#: Nothing is lost on the way, and the kernel answers by itself: what has not come by then was dropped.
PROBE_S = 0.6
SERVER = {4: "10.0.0.1", 6: "fd00::1"}
#: Callers by what the shipped lists make of them. 10/8 and fd00::/8 are on both lists.
STRANGER, OTHER = {4: "203.0.113.7", 6: "2001:db8:0:1::7"}, {4: "203.0.113.8", 6: "2001:db8:0:2::8"}
INSIDE, ADMIN = {4: "10.0.0.5", 6: "fd00::5"}, {4: "192.168.1.5"}

_T = TypeVar("_T")


class Network:
    """The two namespaces, joined by a pair of interfaces. A context manager; nothing of it is left behind."""

    def __init__(self, folder: Path) -> None:
        self.server, self.client = f"fw-s{os.getpid()}", f"fw-c{os.getpid()}"
        self.folder = folder
        self.source = FIREWALL
        self._listeners: list[socket.socket] = []
        self._held: list[socket.socket] = []

    def __enter__(self) -> Network:
        for name in (self.server, self.client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.server, "link", "add", "sv", "type", "veth", "peer", "name", "cl", "netns", self.client)
        self._address(self.server, "sv", ["10.0.0.1/8", "fd00::1/8"])
        callers = ["10.0.0.5/8", "fd00::5/8", "192.168.1.5/24"]
        callers += [f"{who[4]}/24" for who in (STRANGER, OTHER)] + [f"{who[6]}/64" for who in (STRANGER, OTHER)]
        self._address(self.client, "cl", [*callers, "2001:db8:0:1::9/64"])
        for route in ("203.0.113.0/24", "192.168.1.0/24", "2001:db8::/32"):
            ip("-n", self.server, "route", "add", route, "dev", "sv")
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._listeners, *self._held):
            sock.close()
        for name in (self.server, self.client):
            ip("netns", "del", name)

    @staticmethod
    def _address(name: str, device: str, addresses: Iterable[str]) -> None:
        ip("-n", name, "link", "set", device, "up")
        for address in addresses:
            ip("-n", name, "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    # The server

    def run(
        self, *command: str | Path, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A program in the server's namespace, with the firewall's folders in ours."""
        environ = os.environ | {
            "NLLBD_FIREWALL_SOURCE": str(self.source),
            "NLLBD_FIREWALL_STATE": str(self.folder / "state"),
            "NLLBD_FIREWALL_KEPT": str(self.folder / "kept"),
        }
        environ.pop("SSH_CONNECTION", None)
        done = subprocess.run(
            ["ip", "netns", "exec", self.server, *map(str, command)],
            input=stdin, capture_output=True, text=True, env=environ, timeout=60, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def firewall(self, script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of deploy/firewall's commands on the server."""
        assert script != "network" or self.source != FIREWALL, "this would change the shipped lists"
        return self.run(FIREWALL / script, *arguments, check=check)

    def load(self, form: str) -> None:
        """Apply the shipped firewall, and confirm it."""
        self.firewall("apply", "--form", form)
        self.firewall("confirm")

    def listen(self, ports: Iterable[int]) -> None:
        """Servers that accept (in the kernel) on these ports, of both families."""
        wanted = list(ports)

        def open_all() -> list[socket.socket]:
            return [
                socket.create_server(("", port), family=family, backlog=1024)
                for port in wanted
                for family in (socket.AF_INET, socket.AF_INET6)
            ]

        self._listeners += within(self.server, open_all)

    # The callers

    def probe(self, source: str, ports: Iterable[int]) -> dict[int, str]:
        """Port → `open`, `refused`, or `dropped` when nothing came back in time."""
        return {port: outcome for (_, port), outcome in self.connect((source, port) for port in ports)}

    def connect(
        self, wanted: Iterable[tuple[str, int]], *, hold: bool = False, wait_s: float = PROBE_S
    ) -> list[tuple[tuple[str, int], str]]:
        """Connect all pairs of source and port at once (one may come twice); `hold` keeps what was opened."""
        pairs = list(wanted)
        begun = within(self.client, lambda: [(pair, _begin(*pair)) for pair in pairs])
        outcomes = _outcomes([sock for _, sock in begun], wait_s)
        for _, sock in begun:
            if hold and outcomes[sock] == "open":
                self._held.append(sock)
            else:
                sock.close()
        return [(pair, outcomes[sock]) for pair, sock in begun]

    def release(self) -> None:
        """Close what was held, on both ends."""
        while self._held:
            self._held.pop().close()
        for listener in self._listeners:
            listener.setblocking(False)
            while True:
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    break


def within(namespace: str, act: Callable[[], _T]) -> _T:
    """What `act` returns, called in a network namespace: sockets stay there, whoever uses them."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            enter_netns(namespace)
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


def _begin(source: str, port: int) -> socket.socket:
    version = 6 if ":" in source else 4
    sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    sock.setblocking(False)
    sock.bind((source, 0))
    sock.connect_ex((SERVER[version], port))
    return sock


def _outcomes(sockets: list[socket.socket], wait_s: float) -> Mapping[socket.socket, str]:
    found = dict.fromkeys(sockets, "dropped")
    poller = select.poll()
    waiting = {sock.fileno(): sock for sock in sockets}
    for number in waiting:
        poller.register(number, select.POLLOUT)
    end = time.monotonic() + wait_s
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poller.poll(left * 1000):
            sock = waiting.pop(number)
            poller.unregister(number)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            found[sock] = {0: "open", errno.ECONNREFUSED: "refused"}.get(error, errno.errorcode.get(error, str(error)))
    return found
