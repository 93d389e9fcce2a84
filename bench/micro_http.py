"""What the HTTP path costs: the daemon on its fake engine against a bare aiohttp echo, in one run.

    python -m bench.micro_http [--rounds 5] [--seconds 3] [--clients 32]

The daemon runs as in production (API key, limits, metrics, JSON access log into a file) with the FakeRunner in its
engine process; each request is one short sentence that no other request shares. The echo parses the same JSON and
answers with one: what aiohttp on uvloop can do at most. Both take turns; a goal is half of the echo's requests/s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from bench import common, plot
from bench.servers import Server, free_port, stop_on_sigterm

KEY = "benchmark"
NUM_BODIES = 4096
LABELS = ("nllbd (fake engine)", "bare aiohttp echo")
CONTENT_LENGTH = b"content-length:"


class Caller(asyncio.Protocol):
    """One kept-alive connection with one request at a time. The least of a client: on two cores it must not be what is
    measured, so it looks at nothing but status and length."""

    def __init__(self, requests: Sequence[bytes], first: int, stop_at: float, done: asyncio.Future[None]) -> None:
        self._requests, self._next, self._stop_at, self._done = requests, first, stop_at, done
        self._buffer = b""
        self._sent_at = 0.0
        self.latencies: list[float] = []
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _body_length(head):
            return
        self._buffer = b""
        now = time.perf_counter()
        self.latencies.append(now - self._sent_at)
        self.failures += not head.startswith(b"HTTP/1.1 200")
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


def _body_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(CONTENT_LENGTH):
            return int(line[len(CONTENT_LENGTH) :])
    return 0


def request_bytes() -> list[bytes]:
    """Requests with one short sentence each, all different."""
    requests = []
    for number in range(NUM_BODIES):
        text = f"The train number {number} leaves from here."
        body = json.dumps({"text": text, "source_lang": "eng_Latn", "target_lang": "fra_Latn"}).encode()
        head = (
            "POST /translate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


async def hammer(port: int, requests: Sequence[bytes], num_clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, and latencies, of `num_clients` connections that never rest."""
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    callers: list[Caller] = []
    ends: list[asyncio.Future[None]] = []
    for number in range(num_clients):
        end: asyncio.Future[None] = loop.create_future()
        caller = Caller(requests, number * len(requests) // num_clients, begin + seconds, end)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)
        callers.append(caller)
        ends.append(end)
    await asyncio.gather(*ends)
    took = time.perf_counter() - begin
    latencies = [latency for caller in callers for latency in caller.latencies]
    return {
        "requests_per_s": len(latencies) / took,
        "p50_ms": common.percentile(latencies, 50) * 1e3,
        "p99_ms": common.percentile(latencies, 99) * 1e3,
        "failures": sum(caller.failures for caller in callers),
    }


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Rounds of both servers by label."""
    requests = request_bytes()
    serve = ["-m", "nllbd", "serve", "--runner", "fake", "--port", "{port}", "--metrics-port", str(free_port())]
    serve += ["--cache-ttl-s", "0"]  # bodies come again and again: the cache is not what is measured
    rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in LABELS}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.log"
        with (
            Server(LABELS[0], [*serve, "--log-format", "json"], {"NLLBD_API_KEY": KEY}, log) as daemon,
            Server(LABELS[1], ["-m", "bench.echo", "{port}"]) as echo,
        ):
            for server in (daemon, echo):
                uvloop.run(hammer(server.port, requests, options.clients, min(1.0, options.seconds)))
            for number in range(options.rounds):
                for server in (daemon, echo) if number % 2 else (echo, daemon):
                    record = uvloop.run(hammer(server.port, requests, options.clients, options.seconds))
                    record["alone_p50_ms"] = uvloop.run(hammer(server.port, requests, 1, options.seconds / 3))["p50_ms"]
                    rounds[server.label].append(record)
                    told = ", ".join(f"{name} {common.figure(value)}" for name, value in record.items())
                    print(f"round {number + 1} {server.label:20} {told}", flush=True)
            size = log.stat().st_size
    if not size:
        raise RuntimeError("the daemon wrote no access log: this would not be the path of production")
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    stop_on_sigterm()
    print(common.headline(vars(options)))
    rounds = measure(options)
    ours, bare = ([record["requests_per_s"] for record in rounds[label]] for label in LABELS)
    share = common.ratio(ours, bare)
    print(f"requests/s: {LABELS[0]} {common.spread(ours)}, {LABELS[1]} {common.spread(bare)}")
    print(f"share of the echo's: {share}; failures {sum(record['failures'] for record in rounds[LABELS[0]])}")
    path = common.save("micro_http", vars(options), {"rounds": rounds, "share": share}, options.results)
    bars = {"requests/s": {LABELS[0]: common.spread(ours), LABELS[1]: common.spread(bare)}}
    plot.bars(path.with_suffix(".svg"), f"{options.clients} connections, one short sentence a request", "1/s", bars)


if __name__ == "__main__":
    main()
