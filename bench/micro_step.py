"""What the scheduler costs a step, without any model: microseconds of `schedule` and `apply` around a FakeRunner.

    python bench/micro_step.py [--beams 4] [--steps 200]

Two loads: *steady* (nobody comes or goes) and *churn* (everybody has about 30 tokens to say, and what ends is replaced
from the queue). The goal, printed beside it, is 100 µs + 1 µs a lane. The FakeRunner's own time is not counted.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import nllbd
from nllbd.engine.fake import FakeRunner
from nllbd.sched.scheduler import Scheduler
from nllbd.sched.sequence import Priority, SearchParams, SequenceRequest

BLOCK_SIZE = 16
NUM_LANES = (1, 16, 64, 256, 1024)
NUM_WAITING = (0, 100, 10_000)
LONG, SHORT = 1000, 30


def requests(num_beams: int, num_pieces: int, seed: int) -> Iterator[SequenceRequest]:
    """Endless; lengths vary by a half, clients and requests are many, a quarter is bulk, all have deadlines."""
    rng = random.Random(seed)
    seq_id = 0
    while True:
        seq_id += 1
        pieces = tuple(range(10, 10 + rng.randint(num_pieces // 2, num_pieces)))
        yield SequenceRequest(
            seq_id,
            (200, *pieces, 2),
            201,
            SearchParams(num_beams=num_beams, max_length=1024),
            deadline=time.monotonic() + rng.uniform(3600, 7200),
            priority=Priority.BULK if rng.random() < 0.25 else Priority.INTERACTIVE,
            client=f"client{rng.randrange(50)}",
            request_id=f"request{rng.randrange(500)}",
        )


def measure(num_lanes: int, num_waiting: int, num_beams: int, num_pieces: int, num_steps: int) -> list[float]:
    """Seconds of each step's scheduling, with the lanes full and the queue kept at its length."""
    num_beams = min(num_beams, num_lanes)
    capacity = num_lanes // num_beams
    num_blocks = capacity * (num_beams + 1) * (2 * LONG // BLOCK_SIZE)
    scheduler = Scheduler(
        num_blocks,
        BLOCK_SIZE,
        num_lanes,
        max_encode_tokens=1 << 30,
        max_waiting_segments=1 << 30,
        max_waiting_tokens=1 << 30,
    )
    runner = FakeRunner(num_blocks=num_blocks, block_size=BLOCK_SIZE)
    source = requests(num_beams, num_pieces, seed=1)
    for _ in range(capacity + num_waiting):
        scheduler.add(next(source))
    seconds = []
    for _ in range(num_steps):
        begin = time.perf_counter()
        plan = scheduler.schedule()
        planned = time.perf_counter()
        result = runner.execute(plan)
        executed = time.perf_counter()
        outcomes = scheduler.apply(result)
        seconds.append(planned - begin + time.perf_counter() - executed)
        for _ in outcomes:
            scheduler.add(next(source))
        assert plan.num_lanes == capacity * num_beams, "the lanes were not full"
    return seconds[1:]  # the first one starts everybody


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    print(f"{hardware()}; Python {platform.python_version()}; nllbd {nllbd.__version__}; {options.beams} beams, seed 1")
    print(f"{'lanes':>6} {'waiting':>8} {'steady µs':>12} {'churn µs':>12} {'churn p99':>12} {'goal µs':>9}")
    for num_lanes in NUM_LANES:
        for num_waiting in NUM_WAITING:
            steady = measure(num_lanes, num_waiting, options.beams, LONG, options.steps)
            churn = measure(num_lanes, num_waiting, options.beams, SHORT, options.steps)
            p99 = sorted(churn)[math.ceil(0.99 * len(churn)) - 1]
            figures = (statistics.median(steady), statistics.mean(churn), p99)
            shown = " ".join(f"{figure * 1e6:>12.1f}" for figure in figures)
            print(f"{num_lanes:>6} {num_waiting:>8} {shown} {100 + num_lanes:>9}")


if __name__ == "__main__":
    main()
