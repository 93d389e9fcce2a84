"""Load on a server over HTTP: when requests are sent, what became of each, and what that means under an SLO.

Open loop: requests come when they come, and a latency counts from the instant its request was due, whether or not the
generator was late. Closed loop: so many clients, each with one request at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.common import percentile
from bench.corpus import KINDS, Text

GIVE_UP_S = 300.0
SLO_BASE_S, SLO_FACTOR = 2.0, 4.0
BURST_SIZE = 5.0


@dataclass(frozen=True)
class Sample:
    """One request: which text of the pool, when it was due (seconds from the start), how long it took, what it got.

    `status` 0: the connection failed, or nothing came in GIVE_UP_S.
    """

    text: int
    kind: str
    due_s: float
    latency_s: float
    status: int


def poisson(rate: float, count: int, rng: random.Random) -> list[float]:
    """`count` arrivals at `rate` a second, each independent of the others."""
    at, arrivals = 0.0, []
    for _ in range(count):
        at += rng.expovariate(rate)
        arrivals.append(at)
    return arrivals


def bursty(rate: float, count: int, rng: random.Random) -> list[float]:
    """The same rate in bursts that come all at once: sizes geometric with mean BURST_SIZE, bursts as a Poisson
    process."""
    at, arrivals = 0.0, []
    while len(arrivals) < count:
        at += rng.expovariate(rate / BURST_SIZE)
        size = 1
        while rng.random() > 1 / BURST_SIZE:
            size += 1
        arrivals += [at] * size
    return arrivals[:count]


class Client:
    """Sends texts of a pool to one server. Every sending of a text is a different request: its length penalty differs
    in the sixth place, which leaves the work as it is and no server a way to answer from memory."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pool: Sequence[Text], beams: int) -> None:
        self._session, self._url, self._pool, self._beams = session, url, pool, beams
        self._sent = 0

    async def open_loop(self, arrivals: Sequence[float], order: Sequence[int]) -> list[Sample]:
        """Send text `order[i]` of the pool at `arrivals[i]` seconds from now."""
        start = time.perf_counter()

        async def one(due: float, text: int) -> Sample:
            await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            return await self._request(text, start, due)

        return await asyncio.gather(*(one(due, text) for due, text in zip(arrivals, order, strict=True)))

    async def closed_loop(self, num_clients: int, order: Sequence[int]) -> list[Sample]:
        """`num_clients` at a time, until all of `order` is sent."""
        start = time.perf_counter()
        left = list(order)[::-1]
        samples: list[Sample] = []

        async def client() -> None:
            while left:
                samples.append(await self._request(left.pop(), start, time.perf_counter() - start))

        await asyncio.gather(*(client() for _ in range(num_clients)))
        return samples

    async def _request(self, text: int, start: float, due: float) -> Sample:
        item = self._pool[text]
        status = await self._post(item)
        return Sample(text, item.kind, due, time.perf_counter() - start - due, status)

    async def _post(self, item: Text) -> int:
        self._sent += 1
        body = {
            "text": item.text,
            "source_lang": item.source,
            "target_lang": item.target,
            "num_beams": self._beams,
            "length_penalty": 1.0 + self._sent * 1e-6,
        }
        try:
            async with self._session.post(f"{self._url}/translate", json=body) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


def session() -> aiohttp.ClientSession:
    """As many connections as requests are under way."""
    timeout = aiohttp.ClientTimeout(total=GIVE_UP_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def orders(pool: Sequence[Text], count: int, rng: random.Random) -> list[int]:
    """`count` indices into the pool: all of it, shuffled, again and again."""
    order: list[int] = []
    while len(order) < count:
        turn = list(range(len(pool)))
        rng.shuffle(turn)
        order += turn
    return order[:count]


def sustained(samples: Sequence[Sample]) -> float:
    """Answers a second of a closed loop between its first and its last quarter, when all clients were at work."""
    done = sorted(sample.due_s + sample.latency_s for sample in samples if sample.status == 200)
    if len(done) < 4:
        raise ValueError(f"{len(done)} answers are too few to tell a rate")
    first, last = len(done) // 4, 3 * len(done) // 4
    return (last - first) / (done[last] - done[first])


def allowed_s(alone_s: Mapping[int, float]) -> dict[int, float]:
    """The SLO of each text, from the time that CTranslate2 needed for it alone."""
    return {text: SLO_BASE_S + SLO_FACTOR * seconds for text, seconds in alone_s.items()}


def summarize(samples: Sequence[Sample], allowed: Mapping[int, float], offered_s: float) -> dict[str, Any]:
    """Percentiles, goodput and shares, for all kinds together and each apart. `offered_s`: how long requests came.

    Percentiles are of answered requests; a refused or failed one misses its SLO whatever its latency.
    """
    groups = {"all": list(samples)}
    for kind in KINDS:
        groups[kind] = [sample for sample in samples if sample.kind == kind]
    return {name: _summary(group, allowed, offered_s) for name, group in groups.items() if group}


def _summary(samples: Sequence[Sample], allowed: Mapping[int, float], offered_s: float) -> dict[str, Any]:
    answered = [sample.latency_s for sample in samples if sample.status == 200]
    in_time = sum(sample.status == 200 and sample.latency_s <= allowed[sample.text] for sample in samples)
    summary: dict[str, Any] = {
        "requests": len(samples),
        "failed": len(samples) - len(answered),
        "in_time": in_time / len(samples),
        "goodput_per_s": in_time / offered_s,
    }
    if answered:
        summary |= {f"p{percent}_s": percentile(answered, percent) for percent in (50, 95, 99)}
    return summary
