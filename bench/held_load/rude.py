"""Clients that nobody wants: they vanish, trickle, send garbage, or send ten times what can be done.

All on one event loop. What has an id and complete headers is written down: it must be in the access log once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.held_load import texts
from bench.held_load.outcomes import Recorder

PATIENCE_S = 30.0
OVERLOAD_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Crowd:
    """What the rude need to know. `echoes`: the engine gives texts back, so that answers can be told apart."""

    port: int
    key: str
    recorder: Recorder
    poison: Mapping[str, str]
    echoes: bool = True

    async def behave_badly(self, every_s: float) -> None:
        """One of each kind, in random order, for ever."""
        ways = [self.vanish, self.vanish_in_body, self.trickle_body, self.trickle_head, self.garbage, self.bad_json]
        ways += [self.deep_json, self.wrong_length, self.reset_stream]
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(_quietly(random.choice(ways)))
                await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)

    async def vanish(self) -> None:
        """Ask for something that takes a while, and be gone before it comes."""
        sending = self.recorder.begin("rude", "vanish")
        body = self._body(texts.text(6, texts.number()))
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body)
            await asyncio.sleep(random.uniform(0, 0.6))
            wire.abort()

    async def vanish_in_body(self) -> None:
        sending = self.recorder.begin("rude", "vanish in body")
        body = self._body(texts.text(6, texts.number()))
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body[: len(body) // 2])
            await asyncio.sleep(random.uniform(0, 0.3))
            wire.abort()

    async def trickle_body(self) -> None:
        """A byte at a time: the body is not there when patience ends, here or there."""
        sending = self.recorder.begin("rude", "trickle body")
        body = self._body(texts.text(6, texts.number()))
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)))
            with suppress(ConnectionError):
                for byte in body[:12]:
                    await wire.send(bytes((byte,)))
                    await asyncio.sleep(0.4)
            wire.abort()

    async def trickle_head(self) -> None:
        """Never gets to the end of its headers: it is no request, and nothing is to be told of it."""
        async with _Connection(self.port) as wire:
            for byte in b"POST /translate HTTP/1.1\r\nHost: x\r\nX-":
                await wire.send(bytes((byte,)))
                await asyncio.sleep(0.15)
            wire.abort()

    async def garbage(self) -> None:
        """Bytes that are no HTTP."""
        async with _Connection(self.port) as wire:
            await wire.send(random.randbytes(random.choice((1, 40, 4000, 70_000))) + b"\r\n\r\n")
            await wire.read_status()

    async def bad_json(self) -> None:
        sending = self.recorder.begin("rude", "bad json")
        body = random.choice((b"{", b'{"text": "\xff\xfe"}', random.randbytes(300), b"[]", b'{"text": 1}', b"null"))
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body)
            sending.end(await wire.read_status())

    async def deep_json(self) -> None:
        sending = self.recorder.begin("rude", "deep json")
        body = b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body)
            sending.end(await wire.read_status())

    async def wrong_length(self) -> None:
        """Says that its body is far larger than anybody takes."""
        sending = self.recorder.begin("rude", "wrong length")
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, 1 << 40) + b"{")
            sending.end(await wire.read_status())

    async def reset_stream(self) -> None:
        """Listens to a stream for a moment only."""
        sending = self.recorder.begin("rude", "reset stream")
        body = self._body(texts.text(8, texts.number()), stream=True)
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body)
            await wire.read_status()
            wire.abort()

    async def send_poison(self, fault: str) -> None:
        """A request that makes the engine fail; it is told so, or served by chance."""
        sending = self.recorder.begin("poison", fault, 40.0)
        own = texts.number()
        body = self._body(f"Order {own} is {self.poison[fault]} here.", timeout_s=40.0)
        async with _Connection(self.port) as wire:
            await wire.send(self._head(sending.id, len(body)) + body)
            sending.end(await wire.read_status(70.0))

    async def overload(self, rate: float, seconds: float) -> None:
        """Single sentences, `rate` a second whatever comes back: an open loop."""
        timeout = aiohttp.ClientTimeout(total=OVERLOAD_TIMEOUT_S + PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - loop.time()))
                group.create_task(self._overload_one(session))

    async def _overload_one(self, session: aiohttp.ClientSession) -> None:
        own = texts.number()
        body = {"text": texts.text(1, own), "source_lang": "en", "target_lang": "fr", "timeout_s": OVERLOAD_TIMEOUT_S}
        sending = self.recorder.begin("overload", "burst", OVERLOAD_TIMEOUT_S)
        headers = {"X-API-Key": self.key, "X-Request-Id": sending.id}
        url = f"http://127.0.0.1:{self.port}/translate"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(url, json=body, headers=headers) as response:
                content = await response.text()
                right = response.status != 200 or own in content or not self.echoes
                sending.end(response.status, is_right=right, has_retry_after="Retry-After" in response.headers)

    def _head(self, request_id: str, length: int) -> bytes:
        lines = ["POST /translate HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        lines += [f"X-API-Key: {self.key}", f"X-Request-Id: {request_id}", f"Content-Length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _body(self, text: str, **more: Any) -> bytes:
        return json.dumps({"text": text, "source_lang": "en", "target_lang": "fr", **more}).encode()


async def _quietly(way: Callable[[], Awaitable[None]]) -> None:
    """Whatever happens to a rude client is its own business."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        await way()


class _Connection:
    """A TCP connection without manners."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> _Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_status(self, within_s: float = PATIENCE_S) -> int:
        """The status of the answer; 0 if the connection ends without one."""
        async with asyncio.timeout(within_s):
            line = await self._reader.readline()
            if not line:
                return 0
            while (await self._reader.readline()).strip():
                pass
        return int(line.split()[1])

    def abort(self) -> None:
        """A reset, not a polite end."""
        self._writer.transport.abort()
