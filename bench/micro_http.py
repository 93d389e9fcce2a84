"""What the HTTP path costs: the daemon on its fake engine against a bare aiohttp echo, in one run.

    python -m bench.micro_http [--rounds 5] [--seconds 3] [--clients 256]

The daemon runs as in production (API key, a rate limit, metrics, JSON access log into a file, no cache) with the
FakeRunner in its engine process; each request is one short sentence that no other request shares. The echo (echo.py)
parses the same JSON and answers with as much: what aiohttp on uvloop can do at most. Both take turns, under the same
connections of the same client; the goal is half of the echo's requests/s.

Each server in turn has the first core for itself; client and engine process share the others, and the shares that they
used are told: were they full, they and not the server would be measured. The engine takes 2 ms a step, as a GPU does:
it sleeps, for on two cores it must not take from the client what it would not take on a host with a GPU. Beside
requests/s stand the processor microseconds of the server process for each request, which others hardly disturb.

Last, the daemon runs once more under a sampling timer (profiled.py): its microseconds by stage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from bench import common, plot, processor
from bench.ports import free_port
from bench.servers import Server, stop_on_sigterm

KEY = "benchmark"
NUM_BODIES = 4096
RUNNER = "fake:step_ms=2"
PROFILE_S = 4.0
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
    _, found, rest = head.lower().partition(CONTENT_LENGTH)
    return int(rest.partition(b"\r\n")[0]) if found else 0


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


class Contest:
    """Servers that are measured in turns: each on the first core, everything else on the others."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._requests = request_bytes()
        mine = processor.cores()
        self._server_core, self._other_cores = (mine[:1], mine[1:]) if len(mine) > 1 else (mine, mine)
        processor.pin(os.getpid(), self._other_cores)  # the engine process inherits it

    def enter(self, server: Server) -> None:
        """Give a server its core, and warm it up."""
        processor.pin(server.pid, self._server_core)
        self._hammer(server, self._options.clients, min(1.0, self._options.seconds))

    def round(self, server: Server) -> dict[str, Any]:
        """Requests/s and latencies under load, processor time a request of all who take part, and a lone client's
        latency."""
        before, began = self._cpu_s(server), time.perf_counter()
        record = self._hammer(server, self._options.clients, self._options.seconds)
        took = time.perf_counter() - began
        used = {name: after - before[name] for name, after in self._cpu_s(server).items()}
        requests = record["requests_per_s"] * took
        record |= {f"{name}_cpu_us": seconds / requests * 1e6 for name, seconds in used.items()}
        record["server_core_busy"] = used["server"] / took
        record["other_cores_busy"] = (used["engine"] + used["client"]) / took / len(self._other_cores)
        record["alone_p50_ms"] = self._hammer(server, 1, self._options.seconds / 3)["p50_ms"]
        return record

    def profile(self, server: Server, file: Path) -> dict[str, float]:
        """Share of the server's processor time by stage, the greatest first."""
        self._tell(server, file)
        self._hammer(server, self._options.clients, min(PROFILE_S, 4 * self._options.seconds))
        counts = self._tell(server, file)
        return {
            stage: counts[stage] / sum(counts.values()) for stage in sorted(counts, key=lambda stage: -counts[stage])
        }

    def _hammer(self, server: Server, clients: int, seconds: float) -> dict[str, Any]:
        return uvloop.run(hammer(server.port, self._requests, clients, seconds))

    def _cpu_s(self, server: Server) -> dict[str, float]:
        return {
            "server": processor.cpu_s(server.pid),
            "engine": processor.children_cpu_s(server.pid),
            "client": processor.cpu_s(os.getpid()),
        }

    def _tell(self, server: Server, file: Path) -> dict[str, int]:
        """Have the samples written, and counted anew."""
        file.unlink(missing_ok=True)
        os.kill(server.pid, signal.SIGUSR1)
        while not file.exists():
            time.sleep(0.01)
        counts: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
        return counts


def serve_command(runner: str) -> list[str]:
    limits = ["--rate-limit-per-minute", "100000000", "--rate-limit-burst", "100000000", "--cache-ttl-s", "0"]
    ports = ["--port", "{port}", "--metrics-port", str(free_port())]
    room = ["--max-num-lanes", "4096", "--num-beams", "1"]  # the engine has a place for every connection's sentence
    return ["serve", "--runner", runner, *ports, "--log-format", "json", *limits, *room]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of both servers by label, and the daemon's stages."""
    rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in LABELS}
    contest = Contest(options)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "access.log"
        environ = {"NLLBD_API_KEY": KEY, "XDG_STATE_HOME": folder}
        command = serve_command(options.runner)
        with (
            Server(LABELS[0], ["-m", "nllbd", *command], environ, log) as daemon,
            Server(LABELS[1], ["-m", "bench.echo", "{port}"]) as echo,
        ):
            for server in (daemon, echo):
                contest.enter(server)
            for number in range(options.rounds):
                for server in (daemon, echo) if number % 2 else (echo, daemon):
                    record = contest.round(server)
                    rounds[server.label].append(record)
                    told = ", ".join(f"{name} {common.figure(value)}" for name, value in record.items())
                    print(f"round {number + 1} {server.label:20} {told}", flush=True)
        if not log.stat().st_size:
            raise RuntimeError("the daemon wrote no access log: this would not be the path of production")
        samples = Path(folder) / "samples.json"
        with Server("profiled", ["-m", "bench.profiled", str(samples), *command], environ, log) as profiled:
            contest.enter(profiled)
            stages = contest.profile(profiled, samples)
    return {"rounds": rounds, "stages": stages}


def ratios(rounds: Mapping[str, list[dict[str, Any]]]) -> dict[str, common.Spread]:
    """What of the echo's requests/s the daemon reaches: as seen by the client, and by processor time a request."""
    ours, bare = (rounds[label] for label in LABELS)
    seen = common.ratio([it["requests_per_s"] for it in ours], [it["requests_per_s"] for it in bare])
    by_cpu = common.ratio([it["server_cpu_us"] for it in bare], [it["server_cpu_us"] for it in ours])
    return {"share": seen, "share_by_cpu": by_cpu}


def tell(results: Mapping[str, Any]) -> None:
    for label, them in results["rounds"].items():
        for name in ("requests_per_s", "server_cpu_us", "server_core_busy", "other_cores_busy", "alone_p50_ms"):
            print(f"{label:20} {name:18} {common.spread(it[name] for it in them)}")
    ours = results["rounds"][LABELS[0]]
    whole_us = common.spread(it["server_cpu_us"] for it in ours).median
    print(f"where the daemon's {whole_us:.0f} µs of processor time a request go:")
    for stage, share in results["stages"].items():
        print(f"  {share * whole_us:6.1f} µs  {share:5.1%}  {stage}")
    print(f"share of the echo's requests/s: {results['share']} (by processor time: {results['share_by_cpu']})")
    print(f"failures: {sum(it['failures'] for it in ours)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=256, help="connections, each with one request at a time")
    parser.add_argument("--runner", default=RUNNER, help="the daemon's fake engine")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    stop_on_sigterm()
    print(common.headline(vars(options)))
    results = measure(options)
    results |= ratios(results["rounds"])
    tell(results)
    path = common.save("micro_http", vars(options), results, options.results)
    spreads = {label: common.spread(it["requests_per_s"] for it in results["rounds"][label]) for label in LABELS}
    title = f"{options.clients} connections, one short sentence a request"
    plot.bars(path.with_suffix(".svg"), title, "1/s", {"requests/s": spreads})


if __name__ == "__main__":
    main()
