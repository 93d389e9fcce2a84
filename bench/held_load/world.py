"""The daemon under test and what it leans on: services, keys, ports, processes."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.held_load import services, texts
from bench.ports import free_port
from bench.servers import ROOT, Server
from nllbd.principal import Scope
from nllbd.store.key_text import digest, new_id, new_text
from nllbd.store.records import KeyRecord
from nllbd.store.store import Store

#: A scripted engine: a sentence takes some 15 steps, so it translates about 13 a second.
STEP_MS, MAX_NUM_LANES, NUM_BEAMS = 30, 24, 4
CAPACITY_PER_S = 13.0
_SETTINGS: dict[str, Any] = {
    "max_num_lanes": MAX_NUM_LANES,
    "num_beams": NUM_BEAMS,
    "cache_max_items": 500,  # soon full: a cache that fills is no leak, but looks like one
    "rate_limit_per_minute": 600_000,
    "rate_limit_burst": 10_000,
    "log_format": "json",
}


@dataclass
class World:
    """Everything that runs, and how to reach it."""

    folder: Path
    server: Server
    services: list[services.Redis | services.Postgres]
    translate_key: str
    admin_key: str
    metrics_port: int
    database_url: str
    poison: dict[str, str] = field(default_factory=dict)
    echoes: bool = True

    @property
    def log_path(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def outcomes_path(self) -> Path:
        return self.folder / "outcomes.jsonl"

    def get(self, port: int, path: str, timeout_s: float = 10.0, **headers: str) -> tuple[int, bytes]:
        """One GET. (0, b"") when there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        return 0, b""

    def engine(self, *, check: bool = False) -> dict[str, Any]:
        """`/debug/engine`; empty when it cannot be had."""
        path = f"/debug/engine?integrity={int(check)}"
        status, body = self.get(self.server.port, path, **{"X-API-Key": self.admin_key})
        return dict(json.loads(body)) if status == 200 else {}

    def access_lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = (json.loads(line) for line in lines if line.startswith('{"event":"request"'))
        return [line for line in parsed if line.get("logger") == "nllbd.access"]

    def wait_idle(self, within_s: float) -> dict[str, Any]:
        """The engine when nothing runs or waits any more, its books checked; what it is if that does not come."""
        end = time.monotonic() + within_s
        while True:
            seen = self.engine(check=True)
            scheduler = seen.get("scheduler", {})
            if seen.get("answered") and not scheduler["num_running"] + scheduler["num_waiting"]:
                return seen
            if time.monotonic() > end:
                return seen
            time.sleep(0.2)


@contextmanager
def open_world(use_model: bool = False) -> Iterator[World]:
    """A running daemon in a folder of its own; all of it is gone afterwards. `use_model`: the demo model, no faults in
    the engine but from outside."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nllbd-held-load-")))
        folder.chmod(0o755)  # PostgreSQL runs as somebody else
        state = folder / "state"
        state.mkdir()
        found = services.find(folder)
        for service in found:
            stack.callback(service.kill)
        urls = {service.name: service.url for service in found}
        database_url = urls.get("postgres", f"sqlite+aiosqlite:///{state / 'nllbd.db'}")
        translate_key, admin_key = asyncio.run(_add_keys(database_url))
        poison = {} if use_model else texts.poison_tokens()
        settings = dict(_SETTINGS, metrics_port=free_port(), database_url=database_url)
        if "redis" in urls:
            settings["redis_url"] = urls["redis"]
        if not use_model:
            script = ",".join(f"{fault}={token}" for fault, (_, token) in poison.items())
            settings["runner"] = f"fake:step_ms={STEP_MS},{script}"
        server = Server(
            "nllbd",
            ["-m", "nllbd", "serve", "--port", "{port}", *_flags(settings)],
            {"STATE_DIRECTORY": str(state), "HOME": str(state)},
            folder / "daemon.log",
        )
        stack.callback(server.close)
        words = {fault: word for fault, (word, _) in poison.items()}
        port = settings["metrics_port"]
        yield World(folder, server, found, translate_key, admin_key, port, database_url, words, not use_model)


def start_locust(world: World, users: int, seconds: float, log_path: Path) -> subprocess.Popen[bytes]:
    """Polite users, for so long; they finish what they have begun."""
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HELD_LOAD_KEY": world.translate_key,
        "HELD_LOAD_OUTCOMES": str(world.outcomes_path),
        "HELD_LOAD_ECHOES": str(int(world.echoes)),
        "HOME": str(world.folder),
    }
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless"]
    command += ["--users", str(users), "--spawn-rate", str(max(1, users // 3)), "--run-time", f"{seconds:.0f}s"]
    command += ["--host", world.server.url, "--stop-timeout", "70", "--only-summary", "--skip-log-setup"]
    with log_path.open("wb") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=world.folder)


async def _add_keys(database_url: str) -> tuple[str, str]:
    """The texts of a key that translates and of one that also administers."""
    store = await Store.open(database_url)
    made = []
    for name, scopes in (("users", {Scope.TRANSLATE}), ("operator", {Scope.TRANSLATE, Scope.ADMIN})):
        key_id = new_id()
        key = new_text(key_id)
        await store.add_key(KeyRecord(key_id, name, digest(key), frozenset(scopes), datetime.now(UTC)))
        made.append(key)
    await store.close()
    return made[0], made[1]


def _flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
