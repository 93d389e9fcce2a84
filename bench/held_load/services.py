"""Redis and PostgreSQL on ports of their own, to be killed, frozen and started again; none where they are absent."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from bench.ports import free_port

_UP_WITHIN_S = 30.0
_PG_USER = "nllbd"


class ServiceFailed(Exception):
    """A backing service does not come up."""


class Service(Protocol):
    """What faults do to a backing service."""

    name: str

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class _Program(ABC):
    """A server in the foreground, its folder and port."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run."""

    def options(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        """Returns when it accepts connections. Tried again for a while: a killed one leaves things behind."""
        end = time.monotonic() + _UP_WITHIN_S
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.options()
                )
            if _accepts(self.port):
                return
            time.sleep(0.05)
        raise ServiceFailed(f"{self.name} does not come up")

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            for process in [main, *main.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


class Redis(_Program):
    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        return [_redis(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


class Postgres(_Program):
    name = "postgres"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._programs = _postgres()
        self._user = _unprivileged()
        if "user" in self._user:
            os.chown(folder, self._user["user"], self._user["group"])
        make = [self._programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", _PG_USER, "--no-sync"]
        subprocess.run([*make, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd=folder, **self._user)

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{_PG_USER}@127.0.0.1:{self.port}/postgres"

    def command(self) -> Sequence[str]:
        here = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        small = ["-c", "shared_buffers=16MB", "-c", "fsync=off"]
        return [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *here, *small]

    def options(self) -> dict[str, Any]:
        return {"cwd": self.folder, **self._user}


def find(folder: Path) -> list[Redis | Postgres]:
    """The services that this machine has, started."""
    found: list[Redis | Postgres] = []
    for kind, is_there in ((Redis, bool(_redis())), (Postgres, (_postgres() / "initdb").is_file())):
        if is_there:
            own = folder / kind.name
            own.mkdir()
            service = kind(own)
            service.start()
            found.append(service)
    return found


def _redis() -> str:
    return shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""


def _postgres() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path(shutil.which("initdb") or "/nowhere").parent)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres" if "postgres" in {it.pw_name for it in pwd.getpwall()} else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
