"""How late the daemon's event loop is under load, beside an equally busy process that serves nobody, in the same run.

    python -m bench.loop_lag                     # demo model, 64 clients, 20 s
    python -m bench.loop_lag --runner fake:step_ms=5 --clients 200 --seconds 10

A sampler in the daemon's own loop sleeps 5 ms and notes by how much it overslept. A foreign process does the same
beside work of its own: plain computation in slices of 1 ms that add up to the processor share that the daemon was seen
to use. What the machine does to both is not the daemon's fault; the difference is. Goal: at p99 at most 20 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import asdict, dataclass

import aiohttp
import psutil
import uvloop

from bench.ports import free_port
from nllbd import __version__, log
from nllbd.checkpoint import DEMO_FOLDER
from nllbd.config import Settings
from nllbd.daemon import Daemon

SAMPLE_S = 0.005
SLICE_S = 0.001
WARM_UP_S = 4.0
GOAL_MS = 20.0
SEED = 7


@dataclass(frozen=True)
class Lag:
    """Lag in milliseconds."""

    samples: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, lags_s: list[float]) -> Lag:
        cuts = statistics.quantiles(lags_s, n=100)
        p50, p99, highest = (round(seconds * 1000, 2) for seconds in (cuts[49], cuts[98], max(lags_s)))
        return cls(len(lags_s), p50, p99, highest)


async def sample_lag(seconds: float) -> list[float]:
    """Oversleep of this loop, in seconds."""
    lags: list[float] = []
    end = time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        await asyncio.sleep(SAMPLE_S)
        lags.append(max(0.0, time.monotonic() - before - SAMPLE_S))
    return lags


async def foreign(share: float, seconds: float) -> None:
    """The other process: busy for `share` of a processor, sampling its own loop; prints its lags as JSON."""
    burner = asyncio.create_task(burn(share))
    lags = await sample_lag(seconds)
    burner.cancel()
    sys.stdout.write(json.dumps({"lags": lags, "cpu_s": time.process_time()}))


async def burn(share: float) -> None:
    while True:
        until = time.thread_time() + SLICE_S
        while time.thread_time() < until:
            sum(range(200))
        await asyncio.sleep(SLICE_S * (1 / share - 1))


async def ask_without_pause(port: int, clients: int) -> None:
    """The load, a process of its own: `clients` connections, each sends a sentence as soon as it has the last one back.

    Writes a dot for each translation, an exclamation mark for anything else.
    """
    pairs = json.loads((DEMO_FOLDER / "held_out.json").read_text(encoding="utf-8"))
    texts = [texts[0] for _, texts in pairs]
    chance = random.Random(SEED)

    async def client(session: aiohttp.ClientSession) -> None:
        while True:
            body = {"text": chance.choice(texts), "source_lang": "eng_Latn", "target_lang": "fra_Latn"}
            async with session.post(f"http://127.0.0.1:{port}/translate", json=body) as answer:
                await answer.read()
            sys.stdout.write("." if answer.status == 200 else "!")
            sys.stdout.flush()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))


async def measure(args: argparse.Namespace) -> dict[str, object]:
    port = free_port()
    settings = Settings(port=port, metrics_port=0, runner=args.runner, dtype=args.dtype, log_level="WARNING")
    daemon = asyncio.create_task(Daemon(settings, lambda: settings).serve())
    await wait_ready(port, daemon)
    load = await asyncio.create_subprocess_exec(*again("--load", port, args.clients), stdout=PIPE)
    try:
        await asyncio.sleep(WARM_UP_S / 2)
        before = time.process_time()
        await asyncio.sleep(WARM_UP_S)
        share = min(0.95, max(0.01, (time.process_time() - before) / WARM_UP_S))
        other = await asyncio.create_subprocess_exec(*again("--foreign", share, args.seconds), stdout=PIPE)
        await load.stdout.read(1 << 20)
        before = time.process_time()
        ours = await sample_lag(args.seconds)
        our_share = (time.process_time() - before) / args.seconds
        answers = await load.stdout.read(1 << 20)
        answer = json.loads((await other.communicate())[0])
    finally:
        load.kill()
        await load.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon
    return report(
        args,
        Lag.of(ours),
        Lag.of(answer["lags"]),
        our_share,
        answer["cpu_s"] / args.seconds,
        len(answers),
        answers.count(b"!"),
    )


async def wait_ready(port: int, daemon: asyncio.Task[None]) -> None:
    async with aiohttp.ClientSession() as session:
        while not daemon.done():
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)
    await daemon


def again(*arguments: object) -> list[str]:
    """This program once more, in one of its other roles."""
    return [sys.executable, "-m", "bench.loop_lag", *map(str, arguments)]


def report(
    args: argparse.Namespace,
    ours: Lag,
    theirs: Lag,
    our_share: float,
    their_share: float,
    num_answers: int,
    num_errors: int,
) -> dict[str, object]:
    difference = round(ours.p99_ms - theirs.p99_ms, 2)
    return {
        "bench": "loop_lag",
        "nllbd": __version__,
        "python": platform.python_version(),
        "uvloop": uvloop.__version__,
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "runner": args.runner,
        "dtype": args.dtype,
        "clients": args.clients,
        "seconds": args.seconds,
        "seed": SEED,
        "requests_per_s": round(num_answers / args.seconds, 1),
        "errors": num_errors,
        "daemon": asdict(ours),
        "daemon_cpu_share": round(our_share, 2),
        "foreign": asdict(theirs),
        "foreign_cpu_share": round(their_share, 2),
        "difference_p99_ms": difference,
        "goal_ms": GOAL_MS,
        "reached": difference <= GOAL_MS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", default="model", help="model, or fake:…")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--foreign", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        uvloop.run(ask_without_pause(int(args.load[0]), int(args.load[1])))
    elif args.foreign:
        uvloop.run(foreign(float(args.foreign[0]), float(args.foreign[1])))
    else:
        output = log.configure("WARNING")
        result = uvloop.run(measure(args))
        output.close()
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return 0 if result["reached"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
