"""The whole request side in process for tests: the real application on a real port, translator, scheduler and engine
thread, with the echo runner and a tokenizer that loses nothing, so that every translation is its source.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck
from hypothesis import settings as examples

from bench.ports import free_port
from nllbd.bridge.protocol import EngineConfig
from nllbd.bridge.thread import ThreadEngine
from nllbd.checkpoint import DEMO_FOLDER, Checkpoint, read_checkpoint
from nllbd.config import Settings
from nllbd.http.app import build_app, build_metrics_app
from nllbd.http.context import AppContext
from nllbd.http.server import make_runner
from nllbd.languages import MODEL_CODES, Languages
from nllbd.lifecycle import Lifecycle, LifecycleState
from nllbd.metrics import Metrics
from nllbd.text.detect import Detection
from nllbd.translator import Translator

# A shell that starts us in the background has us ignore it, and our children with us; some of them are interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Triton reads this once, when something first imports it: kernels run by its interpreter, except in bench/gpu.sh
os.environ.setdefault("TRITON_INTERPRET", "1")
# No example has a deadline: that a machine stalls for a moment is no finding. And everybody has the same examples, so
# that what fails fails again; `--hypothesis-profile=search` looks for others.
examples.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
examples.register_profile("search", examples.get_profile("steady"), derandomize=False)
examples.load_profile("steady")

EOS = 2
FIRST_CHARACTER = 10
FIRST_LANGUAGE = 2_000_000
WAIT_S = 30.0


class CodepointTokenizer:
    """One token a code point: decoding gives back exactly what was encoded."""

    unk_id = 3

    def __init__(self, codes: Iterable[str] | None = None) -> None:
        self.languages = Languages(codes)

    def encode(self, text: str, source_code: str) -> tuple[int, ...]:
        return (self.language_id(source_code), *(ord(character) + FIRST_CHARACTER for character in text), EOS)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(i - FIRST_CHARACTER) for i in ids if FIRST_CHARACTER <= i < FIRST_LANGUAGE)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def unknown_spans(self, text: str) -> list[tuple[int, int]]:
        return []

    def language_id(self, code: str) -> int:
        return FIRST_LANGUAGE + MODEL_CODES.index(code)


@dataclass
class ScriptedDetector:
    """Knows the language of texts that contain one of its words."""

    words: dict[str, str] = field(default_factory=lambda: {"hello": "eng_Latn", "bonjour": "fra_Latn"})

    def detect(self, text: str) -> Detection:
        for word, code in self.words.items():
            if word in text.lower():
                language = Languages().resolve(code)
                return Detection(language, 0.9, ((language, 0.9),))
        return Detection(None, 0.1)


@dataclass
class Service:
    """A running application. `url` is where; `context` is what it is made of."""

    context: AppContext
    port: int
    metrics_port: int
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Status, decoded JSON (or text), response."""
        async with self.session.request(method, self.url + path, **options) as response:
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.text()), response

    async def translate(self, text: Any, **more: Any) -> tuple[int, Any]:
        """`POST /translate` from English to French unless told otherwise."""
        body = {"text": text, "source_lang": "eng_Latn", "target_lang": "fra_Latn", **more}
        status, answer, _ = await self.request("POST", "/translate", json=body)
        return status, answer

    async def scrape(self) -> str:
        async with self.session.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as response:
            assert response.status == 200
            return await response.text()


StartService = Callable[..., Awaitable[Service]]


async def wait_until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Let the loop run until `condition` holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {WAIT_S} s"
        await asyncio.sleep(0.002)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return wait_until


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[], Any]:
    return CodepointTokenizer


@pytest.fixture(scope="session")
def make_detector() -> Callable[[], Any]:
    return ScriptedDetector


@pytest.fixture(scope="session")
def demo_checkpoint() -> Checkpoint:
    """The demo's checkpoint, said to know all languages."""
    return replace(read_checkpoint(DEMO_FOLDER), languages=None)


@pytest.fixture
async def start_service(demo_checkpoint: Checkpoint) -> AsyncIterator[StartService]:
    """Factory: `await start_service(runner="fake:step_ms=5", is_ready=True, **settings)`."""
    cleanups: list[Callable[[], Awaitable[Any]]] = []

    async def start(
        *, runner: str = "fake", is_ready: bool = True, body_timeout_s: float = 20.0, **options: Any
    ) -> Service:
        options.setdefault("max_request_size", 200_000)
        settings = Settings(**options)
        engine = ThreadEngine(EngineConfig(str(demo_checkpoint.path), runner=runner))
        await engine.start()
        await engine.wait_ready()
        cleanups.append(engine.stop)
        tokenizer: Any = CodepointTokenizer()
        detector: Any = ScriptedDetector()
        metrics = Metrics(engine, demo_checkpoint.name)
        translator = Translator(
            engine=engine,
            tokenizer=tokenizer,
            detector=detector,
            checkpoint=demo_checkpoint,
            settings=settings,
            metrics=metrics,
        )
        cleanups.append(lambda: asyncio.to_thread(translator.close))
        lifecycle = Lifecycle()
        if is_ready:
            lifecycle.advance(LifecycleState.READY)
        context = AppContext(
            settings=settings,
            translator=translator,
            engine=engine,
            metrics=metrics,
            lifecycle=lifecycle,
            checkpoint=demo_checkpoint,
            tokenizer=tokenizer,
            detector=detector,
            body_timeout_s=body_timeout_s,
        )
        ports = []
        for app in (build_app(context), build_metrics_app(context)):
            app_runner = make_runner(app, shutdown_timeout=1.0)
            await app_runner.setup()
            cleanups.append(app_runner.cleanup)
            await web.TCPSite(app_runner, "127.0.0.1", 0).start()
            ports.append(app_runner.addresses[0][1])
        session = aiohttp.ClientSession()
        cleanups.append(session.close)
        return Service(context, ports[0], ports[1], session)

    yield start
    for cleanup in reversed(cleanups):
        await cleanup()


REDIS_SERVER = shutil.which("redis-server", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") or ""


@dataclass
class RedisServer:
    """A real Redis that keeps nothing on disk. `options` are its command line's, by name."""

    folder: Path
    options: dict[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        password = self.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it (again, on the same port), and wait until it answers."""
        self.port = self.port or free_port()
        options = {"port": str(self.port), "save": "", "dir": str(self.folder), **self.options}
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([REDIS_SERVER, *flags], stdout=subprocess.DEVNULL)
        end = time.monotonic() + WAIT_S
        while not self._answers():
            assert self.process.poll() is None, f"redis-server ended with {self.process.poll()}"
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False


StartRedis = Callable[..., RedisServer]


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Factory: `start_redis(maxmemory="4mb", maxmemory_policy="allkeys-lru")` is a running server of the test's own."""
    if not REDIS_SERVER:
        pytest.skip("redis-server is not installed")
    servers: list[RedisServer] = []

    def start(**options: str) -> RedisServer:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, {name.replace("_", "-"): value for name, value in options.items()}))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
async def service(start_service: StartService) -> Service:
    """A ready service with default settings."""
    return await start_service()
