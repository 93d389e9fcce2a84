"""What the cache costs where it finds nothing, saves where it does, and what a Redis in trouble costs.

    python -m bench.cache [--seconds 5] [--clients 4] [--segments 20000]

First the cache alone, in microseconds a segment: a miss and all that is kept of it, without Redis (the goal is 10), a
hit, and looks into a real Redis. Then two daemons on the fake engine, one with Redis and one without, under the same
requests in turns, while Redis works, is paused, goes on, is killed and is started again: what Redis added to the
latency of requests that the cache does not know (the goal is 50 ms at p99), and how many failed (the goal is none).
Needs redis-server.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench import common
from bench.ports import free_port
from bench.redis_server import RedisServer, running_redis
from bench.servers import Server, stop_on_sigterm
from nllbd.cache.cache import SegmentCache
from nllbd.cache.entry import Entry, Sealer
from nllbd.cache.key import Recipe
from nllbd.cache.remote import RemoteCache
from nllbd.metrics import Metrics
from nllbd.redis_client import RedisLink
from nllbd.sched.sequence import SearchParams

RECIPE = Recipe("fra_Latn", SearchParams(), 8)
PHASES = ("up", "paused", "going on", "killed", "started again")
GOAL_ADDED_MS, GOAL_MISS_US = 50.0, 10.0


# The cache alone


@asynccontextmanager
async def a_cache(num_items: int, url: str | None = None) -> AsyncIterator[tuple[SegmentCache, RemoteCache | None]]:
    """A cache as the daemon has it. With Redis it keeps nothing in the process, so that every look goes there."""
    sealer, metrics = Sealer(b"benchmark"), Metrics()
    link = RedisLink(url, metrics=metrics) if url else None
    if link is not None:
        link.start()
        if not await link.wait_up(30):
            raise RuntimeError("Redis is not reached")
    remote = RemoteCache(link, sealer, metrics) if link else None
    made = SegmentCache(
        name_key=sealer.name_key,
        code="code",
        model="model",
        runner="model",
        ttl_s=3600.0,
        max_items=0 if link else num_items,
        metrics=metrics,
        remote=remote,
    )
    yield made, remote
    await made.close()
    if link is not None:
        await link.close()


def sentences(number: int) -> list[str]:
    return [
        f"This is sentence number {index} of the documents that nobody has translated yet." for index in range(number)
    ]


async def measure_alone(num_segments: int, batch: int) -> dict[str, float]:
    """Microseconds a segment in requests of `batch` segments, without Redis."""
    async with a_cache(num_segments) as (cache, _):
        texts = sentences(num_segments)
        miss_us = await _walk(cache, texts, batch, keep=True)
        hit_us = await _walk(cache, texts, batch, keep=False)
    return {"miss_us": miss_us, "hit_us": hit_us}


async def _walk(cache: SegmentCache, texts: Sequence[str], batch: int, *, keep: bool) -> float:
    """What the translator does of it: name, look up; and for a miss, look once more and keep the answer.

    Processor time: who else is busy on this machine does not count.
    """
    began = time.process_time()
    for first in range(0, len(texts), batch):
        name = cache.namer("cpu", "int8", RECIPE)
        names = {text: name("eng_Latn", text) for text in texts[first : first + batch]}
        found = await cache.find(tuple(names.values()))
        for text, it in names.items():
            if it not in found:
                cache.peek(it)
                if keep:
                    cache.keep(it, Entry((text,)))
    return (time.process_time() - began) / len(texts) * 1e6


async def measure_redis(url: str, num_segments: int, batch: int) -> dict[str, float]:
    """Milliseconds of a look for `batch` segments that are all in Redis."""
    async with a_cache(0, url) as (cache, remote):
        assert remote is not None
        name = cache.namer("cpu", "int8", RECIPE)
        names = [name("eng_Latn", text) for text in sentences(num_segments)]
        for it, text in zip(names, sentences(num_segments), strict=True):
            cache.keep(it, Entry((text,)))
        await remote.flush()
        looks, found = [], 0
        for first in range(0, num_segments, batch):
            began = time.perf_counter()
            found += len(await cache.find(names[first : first + batch]))
            looks.append((time.perf_counter() - began) * 1e3)
    return {
        "p50_ms": common.percentile(looks, 50),
        "p99_ms": common.percentile(looks, 99),
        "found": found / num_segments,
    }


# Daemons, and a Redis in trouble


@dataclass
class Samples:
    """Latencies of one server in one phase, in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    def told(self) -> dict[str, float]:
        return {
            "p50_ms": common.percentile(self.latencies, 50),
            "p99_ms": common.percentile(self.latencies, 99),
            "worst_ms": max(self.latencies),
            "requests": len(self.latencies),
            "failures": self.failures,
        }


class Trouble:
    """Requests to both servers in turns, while somebody does things to Redis."""

    def __init__(
        self, servers: dict[str, Server], redis: RedisServer, metrics_port: int, options: argparse.Namespace
    ) -> None:
        self._servers = servers
        self._metrics_port = metrics_port
        self._redis = redis
        self._options = options
        self._number = 0

    async def run(self) -> dict[str, Any]:
        phases: dict[str, Any] = {}
        async with aiohttp.ClientSession() as session:
            for server in self._servers.values():
                await self._ask(session, server, Samples(), "A first sentence.")
            for phase in PHASES:
                await self._disturb(phase)
                phases[phase] = await self._observed(session, self._load(session))
            phases["(known text)"] = await self._observed(session, self._known(session))
        return phases

    async def _observed(
        self, session: aiohttp.ClientSession, load: Coroutine[Any, Any, dict[str, dict[str, float]]]
    ) -> dict[str, Any]:
        """What the load tells, and what the daemon itself says of its looks into the cache meanwhile."""
        before = await self._looks(session)
        found: dict[str, Any] = dict(await load)
        looks = {bound: count - before[bound] for bound, count in (await self._looks(session)).items()}
        reached = (bound for bound, count in looks.items() if count >= 0.99 * max(looks.values()))
        return found | {"look_p99_ms": min(reached) * 1e3}

    async def _looks(self, session: aiohttp.ClientSession) -> dict[float, float]:
        """How many looks took at most so many seconds, until now."""
        async with session.get(f"http://127.0.0.1:{self._metrics_port}/metrics") as response:
            text = await response.text()
        found = re.findall(r'^nllbd_cache_lookup_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
        return {float(bound): float(count) for bound, count in found}

    async def _disturb(self, phase: str) -> None:
        match phase:
            case "paused":
                self._redis.signal(signal.SIGSTOP)
            case "going on":
                self._redis.signal(signal.SIGCONT)
            case "killed":
                self._redis.kill()
            case "started again":
                await asyncio.to_thread(self._redis.start)

    async def _load(self, session: aiohttp.ClientSession) -> dict[str, dict[str, float]]:
        """Some clients at once, each with a request to one server, then to the other, and a short rest."""
        samples = {label: Samples() for label in self._servers}
        end = time.monotonic() + self._options.seconds

        async def client() -> None:
            while time.monotonic() < end:
                for label, server in self._servers.items():
                    self._number += 1
                    text = f"Sentence number {self._number} is new to all of us."
                    await self._ask(session, server, samples[label], text)
                await asyncio.sleep(0.02)

        await asyncio.gather(*(client() for _ in range(self._options.clients)))
        return {label: found.told() for label, found in samples.items()}

    async def _known(self, session: aiohttp.ClientSession) -> dict[str, dict[str, float]]:
        """The same sentence over and over: the cache answers all but the first."""
        samples = {label: Samples() for label in self._servers}
        for _ in range(200):
            for label, server in self._servers.items():
                await self._ask(session, server, samples[label], "Everybody knows this sentence.")
        return {label: found.told() for label, found in samples.items()}

    async def _ask(self, session: aiohttp.ClientSession, server: Server, samples: Samples, text: str) -> None:
        body = {"text": text, "source_lang": "eng_Latn", "target_lang": "fra_Latn"}
        began = time.perf_counter()
        try:
            async with session.post(f"{server.url}/translate", json=body) as response:
                answer = await response.json()
                is_right = response.status == 200 and answer["translated_text"] == text
        except (aiohttp.ClientError, ValueError, KeyError):
            is_right = False
        samples.latencies.append((time.perf_counter() - began) * 1e3)
        samples.failures += not is_right


def measure_trouble(options: argparse.Namespace) -> dict[str, Any]:
    with running_redis() as redis, tempfile.TemporaryDirectory() as folder:
        serve = ["-m", "nllbd", "serve", "--runner", "fake", "--port", "{port}", "--metrics-port"]
        metrics_port = free_port()
        environ = {"STATE_DIRECTORY": folder, "HOME": folder}
        logs = Path(folder) / "log"
        shared = {**environ, "NLLBD_REDIS_URL": redis.url}
        with (
            Server("alone", [*serve, "0"], environ, logs) as alone,
            Server("redis", [*serve, str(metrics_port)], shared, logs) as with_redis,
        ):
            servers = {"alone": alone, "redis": with_redis}
            return uvloop.run(Trouble(servers, redis, metrics_port, options).run())


# Telling


def tell(results: dict[str, Any]) -> bool:
    """Print it; whether the goals were reached."""
    for batch, found in results["alone"].items():
        told = f"miss {found['miss_us']:.1f} µs, hit {found['hit_us']:.1f} µs a segment"
        print(f"cache alone, {batch:>3} segments a request: {told}")
    for batch, found in results["redis"].items():
        told = f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms, found {found['found']:.1%}"
        print(f"look into Redis, {batch:>3} segments: {told}")
    print("request latency, ms:   without Redis        with Redis              added    the look itself")
    heads = " ".join(f"{head:>9}" for head in ("p50", "p99", "p50", "p99", "worst", "p99"))
    print(f"{'Redis is':14} {heads} {'p99 at most':>16}  failed")
    for phase, found in results["trouble"].items():
        alone, redis = found["alone"], found["redis"]
        figures = [alone["p50_ms"], alone["p99_ms"], redis["p50_ms"], redis["p99_ms"], redis["worst_ms"], _added(found)]
        row = " ".join(f"{figure:9.2f}" for figure in figures)
        failed = f"{redis['failures']} of {redis['requests']}"
        print(f"{phase:14} {row} {found['look_p99_ms']:16.2f}  {failed}")
    phases = [results["trouble"][phase] for phase in PHASES]
    worst = max(map(_added, phases))
    failures = sum(found[label]["failures"] for found in phases for label in ("alone", "redis"))
    miss = max(found["miss_us"] for found in results["alone"].values())
    print(f"a miss without Redis: {miss:.1f} µs a segment at most (goal {GOAL_MISS_US:.0f})")
    print(f"added at p99 in any phase: {worst:.1f} ms at most (goal {GOAL_ADDED_MS:.0f}); failed requests: {failures}")
    return failures == 0 and worst <= GOAL_ADDED_MS


def _added(found: dict[str, Any]) -> float:
    return float(found["redis"]["p99_ms"] - found["alone"]["p99_ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--segments", type=int, default=20_000)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    stop_on_sigterm()
    print(common.headline(vars(options)))
    results: dict[str, Any] = {"alone": {}, "redis": {}}
    for batch in (1, 32):
        results["alone"][batch] = uvloop.run(measure_alone(options.segments, batch))
    with running_redis() as redis:
        for batch in (1, 32, 128):
            number = min(options.segments, 50 * batch, 4000)
            results["redis"][batch] = uvloop.run(measure_redis(redis.url, number, batch))
    results["trouble"] = measure_trouble(options)
    is_reached = tell(results)
    common.save("cache", vars(options), results, options.results)
    sys.exit(0 if is_reached else 1)


if __name__ == "__main__":
    main()
