"""The frozen values that pass between scheduler and runner: `StepPlan` in, `StepResult` out. Neither calls back.

Standard library only. KV addressing (shared by kv_manager.py, which counts, and the runner, which computes):
the pool has `num_blocks` blocks of `block_size` slots; one slot holds K and V of one token position for all decoder
layers. Slot s of a block table lies in `table[s // block_size]` at offset `s % block_size`.
Cross KV of a sequence: source position t is slot t of `cross_blocks`.
Self KV: lane i's position t is slot `t * num_beams + i` of `self_blocks`. kv_manager.py says which positions have
KV when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nllbd.sched.sequence import Hypothesis, SequenceRequest


@dataclass(frozen=True, slots=True)
class StartedSequence:
    """A sequence that begins (or, after a preemption, begins again) in this step.

    The runner encodes its source, writes cross KV into `cross_blocks`, and prefills the decoder: `</s>`, code for a
    new one; all tokens its lanes hold for a resumed one (the runner kept its search state when it was preempted).
    """

    request: SequenceRequest
    cross_blocks: tuple[int, ...]
    self_blocks: tuple[int, ...]
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One pass of the loop. The runner applies the fields in this order, then decodes one token for every lane of
    every sequence it holds (those started now included).

    released: forget these altogether (finished by abort or deadline; the runner itself forgets what it reports done).
    preempted: drop the KV of these, keep their search state for a later `StartedSequence(resumed=True)`.
    grown: (seq_id, further self blocks), appended to the sequence's table.
    """

    step: int
    released: tuple[int, ...] = ()
    preempted: tuple[int, ...] = ()
    started: tuple[StartedSequence, ...] = ()
    grown: tuple[tuple[int, tuple[int, ...]], ...] = ()
    num_sequences: int = 0
    num_lanes: int = 0
    num_encode_tokens: int = 0

    @property
    def is_empty(self) -> bool:
        """Nothing to decode; released/preempted may still need telling."""
        return self.num_sequences == 0


@dataclass(frozen=True, slots=True)
class FinishedSequence:
    """A sequence whose search ended in this step; the runner has already forgotten it."""

    seq_id: int
    hypotheses: tuple[Hypothesis, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step produced. Every sequence of the plan that is not in `finished` grew by one position.

    failed: (seq_id, message) of sequences the runner gave up on alone; forgotten likewise.
    """

    step: int
    finished: tuple[FinishedSequence, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    encode_s: float = 0.0
    decode_s: float = 0.0


class FatalRunnerError(Exception):
    """The runner can never run again (a poisoned CUDA context): the engine process must exit and be restarted."""


class Runner(Protocol):
    """Executes plans. The one seam at which tests put a fake."""

    def execute(self, plan: StepPlan) -> StepResult:
        """Run one step. On any exception the runner has forgotten nothing and the engine calls `reset`.

        A plan may hold no sequences and only `released` or `preempted`. A sequence with `max_length` ≤ 2 is finished,
        truncated, in the step that starts it. Raises FatalRunnerError when only a new process can help.
        """
        ...

    def reset(self) -> None:
        """Forget every sequence and all search state (after a step that raised)."""
        ...
