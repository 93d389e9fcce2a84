"""A booted host with nllbd installed, and what these tests ask of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.ops.kit.host import Host, install_nllbd, network
from tests.ops.kit.programs import eventually, need
from tests.ops.kit.traffic import Traffic

#: Sentences take a moment and come back as they are: a request that got another one's answer is seen.
ECHO = 'runner = "fake:step_ms=2"\n'


def spoken(number: int) -> dict[str, str]:
    """A request that no cache can answer, with its number in its only sentence."""
    text = f"This is how number {number} of many sentences sounds"
    return {"text": text, "source_lang": "eng_Latn", "target_lang": "fra_Latn"}


@dataclass
class Machine:
    """One host and its network namespace."""

    host: Host
    netns: str

    def traffic(self, port: int = 8000, **options: Any) -> Traffic:
        if "rate" not in options:
            options.setdefault("clients", 4)
        options.setdefault("echoes", True)
        return Traffic(f"http://127.0.0.1:{port}", netns=self.netns, body=spoken, **options)

    def get(self, path: str, port: int = 8000) -> str:
        return self.host.run("curl", "-sS", "--max-time", "20", f"http://127.0.0.1:{port}{path}").stdout

    def translate(self, text: str = "Good morning.", port: int = 8000, check: bool = True) -> str:
        body = f'{{"text": "{text}", "source_lang": "eng_Latn", "target_lang": "fra_Latn"}}'
        command = ("curl", "-sS", "--fail-with-body", "--max-time", "60", "--json", body)
        return self.host.run(*command, f"http://127.0.0.1:{port}/translate", check=check, timeout=90).stdout

    def main_pid(self, unit: str = "nllbd.service") -> int:
        return int(self.host.show(unit, "MainPID"))

    def engine_pid(self, unit: str = "nllbd.service") -> int:
        """0 while there is none."""
        found = self.host.run("pgrep", "-P", str(self.main_pid(unit)), "-f", "nllbd.engine.worker", check=False)
        return int(found.stdout or 0)

    def wait_active(self, unit: str = "nllbd.service", within_s: float = 60.0) -> None:
        def is_active() -> bool:
            state = self.host.show(unit, "ActiveState")
            assert state != "failed", self.host.systemctl("status", unit, check=False).stdout
            return state == "active"

        eventually(is_active, within_s, f"{unit} active")

    def drop_in(self, name: str, text: str, unit: str = "nllbd.service") -> None:
        self.host.write(f"/run/systemd/system/{unit}.d/{name}.conf", text)
        self.host.systemctl("daemon-reload")

    def settings(self, text: str, instance: str = "") -> None:
        self.host.write(f"/etc/nllbd/instances/{instance}.toml" if instance else "/etc/nllbd/nllbd.toml", text)


@pytest.fixture(scope="module")
def boot() -> Iterator[Callable[[str], Machine]]:
    """Factory of machines that go at the module's end."""
    need("curl")
    with ExitStack() as stack:

        def make(settings: str = ECHO) -> Machine:
            name = f"nllbd-sd{os.getpid()}"
            netns = stack.enter_context(network(name))
            host = stack.enter_context(Host("translate", netns=netns))
            install_nllbd(host, settings=settings)
            return Machine(host, netns)

        yield make
