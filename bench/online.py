"""Servers under load over HTTP: throughput against latency, goodput under an SLO; nllbd, CTranslate2, transformers.

    python -m bench.online                               # 600M shape, 4 beams, five rounds
    python -m bench.online --servers nllbd ctranslate2 --rounds 3 --seconds 60
    python -m bench.online --quick                       # a sample on the small model: does it run at all?

nllbd is the real `nllbd serve`; the others stand behind bench/front.py, CTranslate2 with dynamic batching whose threads
and batch size are tried out first. The mix is of sentences, paragraphs and documents (bench/corpus.py). A request is in
time when it takes at most 2 s + 4 × what CTranslate2 int8 needs for it alone, measured in this run. Saturation is what
a closed loop of many clients gets through; Poisson and bursty arrivals then come at fractions of each server's own.
All servers stay loaded and take turns in each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from bench import common, corpus, load
from bench.child import Spec
from bench.entrants import make_spec
from bench.online_results import LOADED_FRACTION, UNLOADED, Point, draw, outcome, show
from bench.servers import Server, stop_on_sigterm
from bench.sweep import BACKENDS, DEFAULT_BACKEND, best_backend
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.tokenizer import Tokenizer

ARRIVALS = {"poisson": load.poisson, "bursty": load.bursty}
FRACTIONS = (0.8, 1.0, 1.2)
MIN_REQUESTS = 10
BATCHES = (16, 32, 64)
FINALISTS = 3
ONE_BY_ONE = {"sentence": 6, "paragraph": 3, "document": 1}  # how many tell what transformers can do


@dataclass(frozen=True)
class Setup:
    """A server that can be started: a label, its command line behind the interpreter, its environment."""

    label: str
    command: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = ()

    def start(self) -> Server:
        return Server(self.label, self.command, dict(self.environ))


def main() -> None:
    options = _arguments()
    stop_on_sigterm()
    print(common.headline(vars(options)))
    begin = time.perf_counter()
    results = asyncio.run(Bench(options).run())
    results["took_s"] = round(time.perf_counter() - begin, 1)
    shape = options.model.name if options.model else options.shape
    path = common.save(f"online-{shape}", vars(options), results, options.results)
    show(results)
    draw(path.with_suffix(".svg"), results)


class Bench:
    """One run. The methods stand in the order in which they happen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pool = corpus.texts(options.pool, corpus.directions(options.directions), options.seed)
        self.rng = random.Random(options.seed)
        self.points: list[Point] = []
        self.tried: list[dict[str, Any]] = []
        self.saturation: dict[str, float] = {}

    async def run(self) -> dict[str, Any]:
        kinds = [text.kind for text in self.pool]
        print(f"pool: {', '.join(f'{kinds.count(kind)} × {kind}' for kind in corpus.KINDS)}")
        async with load.session() as session:
            self.session = session
            setups = await self._setups()
            servers = [setup.start() for setup in setups]
            try:
                await self._measure(servers)
                memory = {server.label: server.rss / 2**20 for server in servers}
            finally:
                for server in servers:
                    server.close()
        results = {
            "pool": [asdict(text) for text in self.pool],
            "alone_s": self.alone,
            "commands": {setup.label: " ".join(map(common.without_folder, setup.command)) for setup in setups},
            "environments": {setup.label: dict(setup.environ) for setup in setups},
            "ctranslate2_tried": self.tried,
            "saturation_per_s": self.saturation,
            "rss_mib": memory,
        }
        return results | outcome([setup.label for setup in setups], self.points, self.allowed)

    async def _setups(self) -> list[Setup]:
        """The servers asked for, CTranslate2's as it does best (it is always there: the SLO is made of its times)."""
        options = self.options
        model = options.model or _wide(options)
        threads = options.threads or len(os.sched_getaffinity(0))
        forms = [
            make_spec(f"{name}:int8", model, options.cache_dir, threads, "cpu") for name in ("nllbd", "ctranslate2")
        ]
        serve = ["-m", "nllbd", "serve", "--model", str(forms[0].model), "--dtype", "int8", "--port", "{port}"]
        serve += ["--metrics-port", "0", "--num-threads", str(threads), "--log-level", "WARNING", "--cache-ttl-s", "0"]
        backend = self._backend(forms[1], model)
        ways = _ways(threads, options)
        best = await self._best_peer([_peer(forms[1].model, model, threads, *way, backend) for way in ways])
        alone = ["-m", "bench.front", "--library", "transformers", "--model", str(model), "--precision", "float32"]
        alone += ["--threads", str(threads), "--max-batch", "1", "--window-ms", "0", "--port", "{port}"]
        known = {"nllbd": Setup("nllbd", tuple(serve)), "ctranslate2": best}
        known["transformers"] = Setup("transformers", tuple(alone))
        return [known[name] for name in dict.fromkeys([*options.servers, "ctranslate2"])]

    def _backend(self, spec: Spec, model: Path) -> str:
        """The backend on which CTranslate2 is fastest here, tried out on some sentences."""
        if self.options.quick or self.options.peer_way:
            return self.options.peer_backend
        tokenizer = Tokenizer(read_checkpoint(model))
        some = corpus.sentences(96, corpus.directions(self.options.directions), self.options.seed)
        jobs = [(tokenizer.encode(it.text, it.source), tokenizer.language_id(it.target)) for it in some]
        return best_backend(spec, jobs, self.options.beams, 128)

    async def _best_peer(self, setups: Sequence[Setup]) -> Setup:
        """Of those that get most through, the one with most in time when requests come that fast."""
        throughput: dict[Setup, float] = {}
        for setup in setups if len(setups) > 1 else ():
            with setup.start() as server:
                throughput[setup] = await self._saturate(server)
        goodput: dict[Setup, float] = {}
        for setup in sorted(throughput, key=lambda setup: -throughput[setup])[:FINALISTS]:
            with setup.start() as server:
                allowed = load.allowed_s(await self._alone(server, sample=12))
                pool = sorted(allowed)
                count = max(MIN_REQUESTS, round(max(throughput.values()) * self.options.seconds))
                arrivals = load.poisson(max(throughput.values()), count, random.Random(self.options.seed))
                order = [pool[place % len(pool)] for place in range(count)]
                samples = await self._client(server).open_loop(arrivals, order)
                goodput[setup] = load.summarize(samples, allowed, arrivals[-1])["all"]["goodput_per_s"]
            self._tell_tried(setup, throughput[setup], goodput[setup])
        return max(goodput, key=lambda setup: (goodput[setup], throughput[setup])) if goodput else setups[0]

    def _tell_tried(self, setup: Setup, throughput: float, goodput: float) -> None:
        way = " ".join(setup.command[setup.command.index("--workers") :])
        self.tried.append({"way": way, "requests_per_s": throughput, "goodput_per_s": goodput})
        print(f"  ctranslate2 {way}: {throughput:.2f} requests/s, goodput {goodput:.2f}/s", flush=True)

    async def _measure(self, servers: Sequence[Server]) -> None:
        for server in servers:
            await self._client(server).closed_loop(4, self._order(min(8, len(self.pool))))  # warm-up
        peer = next(server for server in servers if server.label == "ctranslate2")
        self.alone = await self._alone(peer)
        self.allowed = load.allowed_s(self.alone)
        for server in servers:
            self.saturation[server.label] = await self._saturate(server)
            print(f"{server.label}: {self.saturation[server.label]:.2f} requests/s at saturation", flush=True)
        for number in range(self.options.rounds):
            turn = number % len(servers)
            turns = [*servers[turn:], *servers[:turn]]
            for server in turns:
                await self._closed(server, number, 1)
            for fraction in self.options.fractions:
                for server in turns:
                    await self._open(server, number, "poisson", fraction)
            for server in (it for it in turns if it.label != "transformers"):
                await self._closed(server, number, self.options.clients)
                await self._open(server, number, "bursty", LOADED_FRACTION)

    async def _alone(self, server: Server, sample: int = 0) -> dict[int, float]:
        """Seconds for each text of the pool (or for `sample` of them) with the server to itself."""
        order = sorted(range(len(self.pool)), key=lambda text: len(self.pool[text].text))
        if sample:
            order = order[:: max(1, len(order) // sample)]
        samples = await self._client(server).closed_loop(1, order)
        failed = [item for item in samples if item.status != 200]
        if failed:
            raise RuntimeError(f"{server.label} answered {len(failed)} requests with {failed[0].status}")
        return {item.text: item.latency_s for item in samples}

    async def _saturate(self, server: Server) -> float:
        """Requests a second that the server gets through. `transformers` takes one at a time: the inverse of what one
        takes in the mean of the mix."""
        if server.label == "transformers":
            return await self._one_by_one(server)
        begin = time.perf_counter()
        count = max(len(self.pool), 4 * self.options.clients, round(self.options.seconds))
        samples = await self._client(server).closed_loop(self.options.clients, self._order(count))
        print(f"  {server.label}: {count} requests in {time.perf_counter() - begin:.1f} s", flush=True)
        return load.sustained(samples)

    async def _one_by_one(self, server: Server) -> float:
        kinds = [text.kind for text in self.pool]
        mean_s = 0.0
        for kind, few in ONE_BY_ONE.items():
            order = [place for place, it in enumerate(kinds) if it == kind][:few]
            samples = await self._client(server).closed_loop(1, order)
            mean_s += kinds.count(kind) / len(kinds) * statistics.mean(sample.latency_s for sample in samples)
        return 1 / mean_s

    async def _closed(self, server: Server, number: int, num_clients: int) -> None:
        rate = self.saturation[server.label] * (1 if num_clients > 1 else 0.3)
        begin = time.perf_counter()
        samples = await self._client(server).closed_loop(num_clients, self._order(self._count(rate)))
        seconds = time.perf_counter() - begin
        name = UNLOADED if num_clients == 1 else f"closed loop of {num_clients}"
        self._keep(Point(server.label, name, len(samples) / seconds, number, seconds, tuple(samples)))

    async def _open(self, server: Server, number: int, arrival: str, fraction: float) -> None:
        rate = fraction * self.saturation[server.label]
        rng = random.Random(f"{self.options.seed} {number} {arrival} {fraction}")
        arrivals = ARRIVALS[arrival](rate, self._count(rate), rng)
        samples = await self._client(server).open_loop(arrivals, self._order(len(arrivals)))
        seconds = len(arrivals) / rate
        self._keep(Point(server.label, f"{arrival} {fraction:g}", rate, number, seconds, tuple(samples)))

    def _keep(self, point: Point) -> None:
        self.points.append(point)
        told = load.summarize(point.samples, self.allowed, point.seconds)["all"]
        what = f"round {point.round + 1} {point.server:12} {point.load:18} {point.rate:6.2f}/s"
        latency = f"p50 {told.get('p50_s', 0):.2f} s, p99 {told.get('p99_s', 0):.2f} s"
        share = f"in time {told['in_time']:.0%}, goodput {told['goodput_per_s']:.2f}/s"
        print(f"{what}: {share}, {latency} (load {common.load_average()})", flush=True)

    def _client(self, server: Server) -> load.Client:
        return load.Client(self.session, server.url, self.pool, self.options.beams)

    def _count(self, rate: float) -> int:
        return max(MIN_REQUESTS, round(rate * self.options.seconds))

    def _order(self, count: int) -> list[int]:
        return load.orders(self.pool, count, self.rng)


# Setups and options


def _ways(threads: int, options: argparse.Namespace) -> list[tuple[int, int]]:
    """(workers, batch size) of CTranslate2 to try: one worker with all threads, or as many of one thread."""
    if options.peer_way:
        workers, _, size = options.peer_way.partition(":")
        return [(int(workers), int(size))]
    if options.quick:
        return [(threads, BATCHES[1])]
    return [(workers, size) for workers in dict.fromkeys((1, threads)) for size in BATCHES]


def _peer(model: Path, tokenizer: Path, threads: int, workers: int, batch: int, backend: str) -> Setup:
    command = ["-m", "bench.front", "--library", "ctranslate2", "--model", str(model), "--tokenizer", str(tokenizer)]
    command += ["--port", "{port}", "--workers", str(workers), "--threads", str(threads // workers)]
    return Setup("ctranslate2", (*command, "--max-batch", str(batch)), tuple(BACKENDS[backend].items()))


def _wide(options: argparse.Namespace) -> Path:
    from bench.widen import cached  # torch: only here

    return cached(options.shape, options.cache_dir)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pairs = [f"{source}-{target}" for source, target in permutations(corpus.LANGUAGES, 2)]
    parser.add_argument("--shape", default="600M", choices=["600M", "1.3B", "3.3B"], help="of the widened demo model")
    parser.add_argument("--model", type=Path, help="another checkpoint folder instead")
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/nllbd-bench"))
    parser.add_argument("--servers", nargs="+", default=["nllbd", "ctranslate2", "transformers"])
    parser.add_argument("--threads", type=int, default=0, help="of each server's engine; default: all cores")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--directions", default=",".join(pairs), help="FROM-TO[,FROM-TO…]")
    parser.add_argument("--peer-way", metavar="WORKERS:BATCH", help="CTranslate2's, instead of trying them out")
    parser.add_argument("--peer-backend", choices=BACKENDS, default=DEFAULT_BACKEND, help="with --peer-way")
    parser.add_argument("--pool", type=int, default=80, help="different requests")
    parser.add_argument("--clients", type=int, default=24, help="of the closed loop that saturates")
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS), help="of saturation")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--quick", action="store_true", help="short loads, the small model, one round")
    options = parser.parse_args()
    if options.quick:
        options.model = options.model or DEMO_FOLDER
        options.pool, options.clients = min(options.pool, 12), min(options.clients, 4)
        options.seconds, options.rounds, options.fractions = min(options.seconds, 2.0), 1, [LOADED_FRACTION]
    return options


if __name__ == "__main__":
    main()
