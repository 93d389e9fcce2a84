"""Hosts on a network of their own: network namespaces on a bridge, all removed at the end."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType


class Lan:
    """`Lan("one", "two")` makes two hosts; `lan.names["one"]` is the namespace, `lan.addresses["one"]` its address."""

    def __init__(self, *hosts: str, network: str = "10.97.0") -> None:
        mark = os.getpid() % 100000
        self.network = network
        self._switch = f"sw{mark}"
        self.names = {host: f"{host}-{mark}" for host in hosts}
        self.addresses = {host: f"{network}.{number}" for number, host in enumerate(hosts, start=11)}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def run(self, host: str, *command: str, check: bool = True) -> str:
        """Output of a command that runs on a host."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.names[host], *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def unplug(self, host: str) -> None:
        """Its cable is out: as if it had lost its power, for everybody else."""
        _ip("-n", self._switch, "link", "set", f"p-{host}", "down")

    def plug(self, host: str) -> None:
        _ip("-n", self._switch, "link", "set", f"p-{host}", "up")

    def close(self) -> None:
        for name in (*self.names.values(), self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def __enter__(self) -> Lan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        for host, name in self.names.items():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p-{host}", "netns", self._switch)
            _ip("-n", self._switch, "link", "set", f"p-{host}", "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{self.addresses[host]}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
