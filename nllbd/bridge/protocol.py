"""Event loop ↔ engine: the plain dataclasses that cross, and the Protocol that both carriers (thread.py,
process.py) fulfil. Knows nothing of tensors, models or HTTP.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from nllbd.sched.sequence import ClientShare, Priority, SequenceOutcome, SequenceRequest


class EngineState(enum.StrEnum):
    """LOADING → READY → (RESTARTING → READY)* → STOPPED; FAILED when restarts do not help."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything an engine needs to start; plain values, sent to the child process as its first message.

    0 for a budget means: derive it from the device. `runner` is "model", "gpu" for the GPU's runner on any device (to
    test it), or "fake" for the scripted FakeRunner.
    `default_source_tokens` and `default_lane_tokens` (positions times beams) are what the longest sentence of a request
    without wishes can take; an engine that could not hold it does not start.
    """

    model_path: str
    device: str = "auto"
    dtype: str = "auto"
    num_threads: int = 0
    max_num_lanes: int = 0
    max_encode_tokens: int = 0
    kv_cache_bytes: int = 0
    max_num_beams: int = 8
    default_source_tokens: int = 0
    default_lane_tokens: int = 0
    max_waiting_segments: int = 20_000
    max_waiting_tokens: int = 2_000_000
    runner: str = "model"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a started engine says of itself."""

    device: str
    dtype: str
    num_blocks: int
    block_size: int
    max_num_lanes: int
    max_encode_tokens: int
    num_threads: int
    load_s: float
    pid: int


#: Upper bounds of the ranges that steps are counted in, in seconds; what is longer than all comes last.
STEP_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot, at most one a step. Counters are totals since the engine started.

    `step_s` is the time of all steps, `step_counts` how many fell into each range of STEP_BOUNDS_S.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_lanes: int = 0
    waiting_tokens: int = 0
    used_blocks: int = 0
    num_blocks: int = 0
    steps: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    preemptions: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    last_step_s: float = 0.0
    tokens_per_s: float = 0.0
    step_s: float = 0.0
    step_counts: tuple[int, ...] = (0,) * (len(STEP_BOUNDS_S) + 1)


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step that was done: what was in it and how long it took, planning not included."""

    step: int
    num_sequences: int
    num_lanes: int
    encode_tokens: int
    step_s: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """The engine's inside, between two steps. No text and no token of anybody.

    `clients` are the heaviest of `num_clients` rows; `integrity` is None if it was not asked for, empty when the books
    balance, else what is wrong with them.
    """

    clients: tuple[ClientShare, ...]
    num_clients: int
    num_parked: int
    lane_limit: int
    last_steps: tuple[StepTime, ...]
    integrity: str | None = None


class EngineClient(Protocol):
    """The event loop's side. All methods are called on the loop's thread; none blocks.

    Contract: each submitted sequence gets exactly one outcome, under faults too; its future never raises anything
    but CancelledError (failures are outcomes with a reason).
    """

    @property
    def state(self) -> EngineState: ...

    @property
    def info(self) -> EngineInfo | None: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def num_waiting(self) -> int:
        """Sequences that no step has held yet, as in `stats`; cheap enough to be asked for each segment."""
        ...

    @property
    def num_restarts(self) -> int: ...

    async def start(self) -> None:
        """Begin loading; returns at once (await `wait_ready` for the outcome)."""

    async def wait_ready(self) -> EngineInfo:
        """Raises CheckpointError/InternalError when the engine cannot start."""
        ...

    def next_seq_id(self) -> int: ...

    def submit(self, requests: Iterable[SequenceRequest]) -> list[asyncio.Future[SequenceOutcome]]:
        """Queue sequences; accepted also while the engine restarts (they wait for it)."""
        ...

    def update(self, seq_id: int, priority: Priority, deadline: float) -> None:
        """Raise class or deadline of a sequence that another request joined."""

    def abort(self, seq_ids: Iterable[int]) -> None:
        """Drop sequences by the next step; their futures resolve with reason ABORTED."""

    async def inspect(self, check: bool = False) -> EngineSnapshot | None:
        """A look inside; None when the engine is away or too busy. `check` its books, too: O(everything)."""
        ...

    async def stop(self) -> None:
        """End the engine now; what is unfinished resolves as ABORTED."""
