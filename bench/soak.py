"""Random arrivals, aborts and deadlines on the real model with a tiny KV pool, for as long as told.

    python -m bench.soak [--seconds 300] [--pool-blocks 48]

At the end nothing may be left: every sequence had exactly one outcome, no block is held, integrity holds, and the
memory in use has not grown since the first quarter.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import psutil

from bench.exactness import make_requests, small_engine
from nllbd.engine.engine import Engine
from nllbd.sched.sequence import Priority, SequenceRequest

MAX_WAITING = 200
GROWTH_ALLOWED_BYTES = 48 << 20


@dataclass
class Soak:
    """One run: what was added, how it ended, how much memory was in use when."""

    engine: Engine
    templates: list[SequenceRequest]
    rng: random.Random
    added: set[int] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    ended: set[int] = field(default_factory=set)
    doubled: int = 0
    memory: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Load for `seconds`, then let everything finish."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._arrive()
            self._leave()
            self._step()
            if self.engine.stats.steps % 64 == 0:
                self.engine.check_integrity()
                self.memory.append(psutil.Process().memory_info().rss)
        while self.engine.has_work:
            self._step()
        self.engine.check_integrity()

    def problems(self) -> list[str]:
        """What is wrong now that it is over; empty if nothing."""
        found = []
        if self.added != self.ended or self.doubled:
            found.append(f"{len(self.added - self.ended)} sequences lost, {self.doubled} doubled")
        if self.engine.stats.used_blocks:
            found.append(f"{self.engine.stats.used_blocks} blocks are still held")
        if self.growth_bytes() > GROWTH_ALLOWED_BYTES:
            found.append(f"memory grew by {self.growth_bytes() >> 20} MiB")
        return found

    def growth_bytes(self) -> int:
        """Highest use in the last quarter less the highest in the first quarter (warm-up included)."""
        quarter = max(1, len(self.memory) // 4)
        return max(self.memory[-quarter:], default=0) - max(self.memory[:quarter], default=0)

    def _arrive(self) -> None:
        room = MAX_WAITING - self.engine.stats.num_waiting
        for _ in range(min(room, self.rng.choice((0, 0, 1, 2, 8)))):
            seq_id = len(self.added)
            wait_s = self.rng.choice((0.005, 0.2, 60.0, 60.0, 60.0))
            self.engine.add(
                [
                    replace(
                        self.rng.choice(self.templates),
                        seq_id=seq_id,
                        deadline=time.monotonic() + wait_s,
                        priority=self.rng.choice(list(Priority)),
                    )
                ]
            )
            self.added.add(seq_id)

    def _leave(self) -> None:
        if self.rng.random() < 0.1 and self.added:
            newest = max(self.added)
            self.engine.abort([self.rng.randint(max(0, newest - 60), newest)])

    def _step(self) -> None:
        for outcome in self.engine.step():
            self.doubled += outcome.seq_id in self.ended
            self.ended.add(outcome.seq_id)
            self.outcomes[outcome.reason.value] += 1


def soak(seconds: float, pool_blocks: int, seed: int = 0) -> Soak:
    """Run it on the demo model in float32."""
    run = Soak(small_engine("float32", pool_blocks), make_requests(300, 30, seed), random.Random(seed))
    run.run(seconds)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--pool-blocks", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = soak(options.seconds, options.pool_blocks, options.seed)
    stats = run.engine.stats
    print(f"{len(run.added)} sequences in {stats.steps} steps, {stats.preemptions} preemptions; {dict(run.outcomes)}")
    print(f"memory: {run.memory[-1] >> 20} MiB at the end, grown by {run.growth_bytes() / (1 << 20):.1f} MiB")
    problems = run.problems()
    print("\n".join(problems) or "nothing lost, doubled, leaked or grown; integrity holds")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
