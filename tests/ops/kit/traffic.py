"""Load that accounts for every request: numbered translations, each with its outcome."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import aiohttp.abc

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Outcome:
    """What became of one request. `error` is set when no whole answer came; `number` is in its text."""

    number: int
    began_at: float
    latency_s: float
    status: int | None = None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def __str__(self) -> str:
        what = self.error or f"{self.status} {self.body[:200]}"
        return f"#{self.number} after {self.latency_s:.2f} s: {what}"


def numbered(number: int) -> dict[str, Any]:
    """The default request: a short text with its number in it."""
    return {"text": f"It is raining. {number}", "source_lang": "en", "target_lang": "fr"}


class Traffic:
    """Sends translations from a thread of its own from `start` to `stop`; each request ends in one `Outcome`.

    Either `rate` (requests a second, sent whatever the answers take) or `clients` (each sends its next request when the
    last was answered). A request is a success when it is answered with 200 and, with `echoes` (the fake runner), its
    answer has its number in it: answers must not be mixed up.

        with Traffic(nginx.url, clients=4, cafile=ca) as traffic:
            traffic.wait_for(50); nginx.reload(); traffic.wait_for(50)
        assert not traffic.failed, traffic.report()

    Attributes:
        outcomes: of all finished requests, in the order in which they ended.
        addresses: where names are, e.g. `{"api.example.test": "127.0.0.1"}`; others are looked up.
        netns: sends from this network namespace (`ip netns`; needs root).
        keepalive: connections are used again; False makes a new one for each request.
        retry_stale: send again, once, what went out on a kept connection that was closed before a byte of the answer
            came, as browsers do; `num_stale` counts these. nginx before 1.27.4 closes idle connections at once when it
            reloads, whatever is under way to it, so that without this, or `keepalive=False`, a reload can cost a
            request. Leave it off where nothing of the kind is expected.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float | None = None,
        clients: int | None = None,
        path: str = "/translate",
        headers: Mapping[str, str] | None = None,
        body: Callable[[int], Any] = numbered,
        cafile: Path | None = None,
        timeout_s: float = 60.0,
        keepalive: bool = True,
        retry_stale: bool = False,
        echoes: bool = False,
        addresses: Mapping[str, str] | None = None,
        netns: str | None = None,
    ) -> None:
        assert (rate is None) != (clients is None), "give rate or clients"
        self.url, self.path, self.headers, self.body = url.rstrip("/"), path, dict(headers or {}), body
        self.rate, self.clients, self.timeout_s = rate, clients, timeout_s
        self.keepalive, self.retry_stale = keepalive, retry_stale
        self.echoes, self.addresses, self.netns = echoes, dict(addresses or {}), netns
        self.num_stale = 0
        self._tls = ssl.create_default_context(cafile=str(cafile)) if cafile else None
        self.outcomes: list[Outcome] = []
        self.num_sent = 0
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._crash: BaseException | None = None

    # What it saw

    @property
    def failed(self) -> list[Outcome]:
        """Requests that were not answered with 200 and the right translation."""
        return [outcome for outcome in list(self.outcomes) if not self._is_success(outcome)]

    @property
    def latencies(self) -> list[float]:
        """Seconds of the requests that succeeded."""
        return [outcome.latency_s for outcome in list(self.outcomes) if self._is_success(outcome)]

    @property
    def counts(self) -> Counter[str]:
        """How many ended with which status or error."""
        return Counter(outcome.error or str(outcome.status) for outcome in list(self.outcomes))

    def report(self) -> str:
        """For the message of an assertion: figures, and the first failures."""
        shown = "\n".join(str(outcome) for outcome in self.failed[:10])
        figures = (
            f"{self.num_sent} sent, {self.num_stale} of them twice, {len(self.outcomes)} ended: {dict(self.counts)}"
        )
        return f"{figures}\n{shown}"

    # Running it

    def start(self) -> Traffic:
        self._thread.start()
        return self

    def stop(self) -> Traffic:
        """Send nothing more and return when every request has ended; each has exactly one outcome then."""
        self._is_stopping.set()
        self._thread.join(self.timeout_s + 10)
        assert not self._thread.is_alive(), "a request never ended"
        if self._crash is not None:
            raise self._crash
        assert len(self.outcomes) == self.num_sent, self.report()
        return self

    def wait_for(self, more: int, *, within_s: float = 60.0, good: bool = True) -> None:
        """Return when `more` requests that began after this call have ended (well, unless `good` is False)."""
        since = time.monotonic()

        def enough() -> bool:
            ended = (o for o in self.outcomes if o.began_at >= since and (not good or self._is_success(o)))
            return self._crash is not None or sum(1 for _ in ended) >= more

        with self._changed:
            assert self._changed.wait_for(enough, within_s), f"too little in {within_s} s; {self.report()}"
        if self._crash is not None:
            raise self._crash

    def __enter__(self) -> Traffic:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._is_stopping.set()
            self._thread.join(self.timeout_s + 10)

    # In its thread

    def _run(self) -> None:
        try:
            if self.netns:
                enter_netns(self.netns)
            asyncio.run(self._send_all())
        except BaseException as error:
            self._crash = error
        with self._changed:
            self._changed.notify_all()

    async def _send_all(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=0, force_close=not self.keepalive, ssl=self._tls or True, resolver=_Resolver(self.addresses)
        )
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[tracing]) as session:
            if self.rate is not None:
                await self._send_at_rate(session, 1 / self.rate)
            else:
                await asyncio.gather(*(self._send_in_turn(session) for _ in range(self.clients or 1)))

    async def _send_at_rate(self, session: aiohttp.ClientSession, every_s: float) -> None:
        tasks: list[asyncio.Task[None]] = []
        due = time.monotonic()
        while not self._is_stopping.is_set():
            tasks.append(asyncio.create_task(self._send(session)))
            due = max(due + every_s, time.monotonic() - 1.0)  # a machine that fell behind does not send a burst
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _send_in_turn(self, session: aiohttp.ClientSession) -> None:
        while not self._is_stopping.is_set():
            await self._send(session)
            if self.outcomes[-1].status != 200:
                await asyncio.sleep(0.02)  # refusals come fast; this is a client, not an attack

    async def _send(self, session: aiohttp.ClientSession) -> None:
        number, began = self.num_sent, time.monotonic()
        self.num_sent += 1
        try:
            status, headers, body = await self._exchange(session, self.body(number))
            outcome = Outcome(number, began, time.monotonic() - began, status, None, headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"{type(error).__name__}: {error}"
            outcome = Outcome(number, began, time.monotonic() - began, error=text)
        with self._changed:
            self.outcomes.append(outcome)
            self._changed.notify_all()

    async def _exchange(
        self, session: aiohttp.ClientSession, content: Any, is_again: bool = False
    ) -> tuple[int, dict[str, str], str]:
        was_reused = asyncio.Event()
        try:
            async with session.post(
                self.url + self.path, json=content, headers=self.headers, trace_request_ctx=was_reused
            ) as answer:
                return answer.status, dict(answer.headers), await answer.text()
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if is_again or not self.retry_stale or not was_reused.is_set():
                raise
            self.num_stale += 1
        return await self._exchange(session, content, is_again=True)

    def _is_success(self, outcome: Outcome) -> bool:
        if outcome.status != 200:
            return False
        return not self.echoes or str(outcome.number) in json.loads(outcome.body)["translated_text"]


class _Resolver(aiohttp.ThreadedResolver):
    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__()
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return await super().resolve(self._addresses.get(host, host), port, family)


async def _note_reuse(_session: Any, context: Any, _params: Any) -> None:
    context.trace_request_ctx.set()


def enter_netns(name: str) -> None:
    """Move the calling thread, and it alone, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")
    finally:
        os.close(descriptor)
