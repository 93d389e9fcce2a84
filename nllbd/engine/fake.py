"""A runner without a model: it translates by echo, keeps to the plan contract to the letter, and fails on request.

Shipped, because everything above the runner is tested and load-tested with it. It is the contract of sched/plan.py as
a program: it has a KV pool of its own, one token id a slot, writes into it what a model would write K and V for, reads
its answers back from there, and raises PlanError when a plan gives it a block twice or a slot too few.

A translation is `[target_id, *source_ids[1:-1], </s>]`, one token a step; the k-th hypothesis is the same with a lower
score.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import NoReturn

from nllbd.errors import ConfigError
from nllbd.sched.plan import FatalRunnerError, FinishedSequence, StartedSequence, StepPlan, StepResult
from nllbd.sched.sequence import Hypothesis, SequenceRequest

START_ID = 2
EOS_ID = 2


class PlanError(FatalRunnerError):
    """The scheduler broke the contract of plan.py: no sequence is to blame, so this ends the process."""


@dataclass(frozen=True, slots=True)
class FakeScript:
    """How a FakeRunner behaves. A token id of -1 is no token: that fault is off.

    step_ms, token_us: what a step takes, plus so much for each token encoded.
    fail_on: the sequence is reported failed when it would say this token. raise_on: the step raises RuntimeError.
    fatal_on: it raises FatalRunnerError. die_on: the process kills itself. hang_on: the step never ends.
    oom_lanes: more lanes than that in one step raise MemoryError (0: never).
    """

    step_ms: float = 0.0
    token_us: float = 0.0
    fail_on: int = -1
    raise_on: int = -1
    fatal_on: int = -1
    die_on: int = -1
    hang_on: int = -1
    oom_lanes: int = 0

    @classmethod
    def parse(cls, text: str) -> FakeScript:
        """Read `fake` or `fake:step_ms=5,die_on=78`. Raises ConfigError naming what it does not understand."""
        head, _, body = text.partition(":")
        if head != "fake":
            raise ConfigError(f"runner {text!r}: expected 'fake' or 'fake:name=value,…'", field="runner")
        types = {item.name: float if isinstance(item.default, float) else int for item in fields(cls)}
        values: dict[str, float] = {}
        for part in filter(None, body.split(",")):
            name, _, value = part.partition("=")
            if name not in types:
                raise ConfigError(f"runner {text!r}: unknown {name!r}; known are {', '.join(types)}", field="runner")
            try:
                values[name] = types[name](value)
            except ValueError:
                raise ConfigError(f"runner {text!r}: {name} is {value!r}, not a number", field="runner") from None
        return cls(**values)  # type: ignore[arg-type]


@dataclass(slots=True)
class _State:
    """One sequence as the runner knows it. `last` is decided but its KV is not yet written."""

    request: SequenceRequest
    length: int = 2
    cross_blocks: list[int] = field(default_factory=list)
    self_blocks: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # the search state that survives a preemption


class FakeRunner:
    """See the module's docstring. `num_blocks` and `block_size` must be no smaller than, and equal to, the scheduler's.

    `sleep` takes seconds: give a scripted clock's to run without waiting.
    """

    def __init__(
        self,
        script: FakeScript | None = None,
        num_blocks: int = 4096,
        block_size: int = 16,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._block_size = block_size
        self._script = script or FakeScript()
        self._sleep = sleep
        self._slots = [-1] * (num_blocks * block_size)
        self._owner: dict[int, int] = {}  # block → seq_id
        self._live: dict[int, _State] = {}
        self._preempted: dict[int, _State] = {}
        self._last_step = 0

    def execute(self, plan: StepPlan) -> StepResult:
        """Run one step. Raises PlanError if the plan breaks the contract, and what the script says."""
        _require(plan.step > self._last_step, f"step {plan.step} after step {self._last_step}")
        self._last_step = plan.step
        for seq_id in plan.released:
            self._release(seq_id)
        for seq_id in plan.preempted:
            _require(seq_id in self._live, f"sequence {seq_id} preempted but not live")
            state = self._live.pop(seq_id)
            self._drop_blocks(seq_id, state)
            self._preempted[seq_id] = state
        for started in plan.started:
            self._start(started)
        for seq_id, blocks in plan.grown:
            _require(seq_id in self._live, f"sequence {seq_id} grown but not live")
            self._take_blocks(seq_id, blocks)
            self._live[seq_id].self_blocks += blocks
        return self._decode(plan)

    def reset(self) -> None:
        """Forget everything."""
        self._owner.clear()
        self._live.clear()
        self._preempted.clear()
        self._slots = [-1] * len(self._slots)

    @property
    def num_held(self) -> tuple[int, int, int]:
        """Sequences live, sequences preempted, blocks owned: what must be zero after a drain."""
        return len(self._live), len(self._preempted), len(self._owner)

    # The steps of a step

    def _release(self, seq_id: int) -> None:
        state = self._live.pop(seq_id, None)
        if state is not None:
            self._drop_blocks(seq_id, state)
            return
        _require(self._preempted.pop(seq_id, None) is not None, f"sequence {seq_id} released but unknown")

    def _start(self, started: StartedSequence) -> None:
        """Encode the source, prefill what is decided."""
        request = started.request
        seq_id = request.seq_id
        _require(seq_id not in self._live, f"sequence {seq_id} started twice")
        if started.resumed:
            _require(seq_id in self._preempted, f"sequence {seq_id} resumed but not preempted")
            state = self._preempted.pop(seq_id)
        else:
            _require(seq_id not in self._preempted, f"sequence {seq_id} must be resumed")
            state = _State(request, tokens=[START_ID, request.target_id])
        self._take_blocks(seq_id, started.cross_blocks)
        self._take_blocks(seq_id, started.self_blocks)
        state.cross_blocks, state.self_blocks = list(started.cross_blocks), list(started.self_blocks)
        self._live[seq_id] = state
        for position, token in enumerate(request.source_ids):
            self._slots[self._slot(state.cross_blocks, position)] = token
        for position in range(state.length - 1):
            self._write(state, position)

    def _decode(self, plan: StepPlan) -> StepResult:
        num_lanes = sum(state.request.params.num_beams for state in self._live.values())
        _require(len(self._live) == plan.num_sequences, f"{len(self._live)} sequences, {plan.num_sequences} planned")
        _require(num_lanes == plan.num_lanes, f"{num_lanes} lanes, {plan.num_lanes} planned")
        script = self._script
        if script.oom_lanes and num_lanes > script.oom_lanes:
            raise MemoryError(f"{num_lanes} lanes")
        encode_s = plan.num_encode_tokens * script.token_us / 1e6
        decode_s = script.step_ms / 1e3 if self._live else 0.0
        if encode_s + decode_s > 0:
            self._sleep(encode_s + decode_s)
        finished: list[FinishedSequence] = []
        failed: list[tuple[int, str]] = []
        for state in self._live.values():
            token = self._advance(state)
            if token == script.fail_on:
                failed.append((state.request.seq_id, f"scripted: token {token}"))
            elif token == EOS_ID or state.length >= state.request.params.max_length:
                finished.append(self._finish(state, truncated=token != EOS_ID))
        for seq_id in [item.seq_id for item in finished] + [seq_id for seq_id, _ in failed]:
            self._drop_blocks(seq_id, self._live.pop(seq_id))
        return StepResult(plan.step, tuple(finished), tuple(failed), encode_s, decode_s)

    def _advance(self, state: _State) -> int | None:
        """Write the KV of the newest position and decide the next; None when max_length allows no more."""
        self._write(state, state.length - 1)
        if state.length >= state.request.params.max_length:
            return None
        token = self._next_token(state)
        self._misbehave(token)
        state.tokens.append(token)
        state.length += 1
        return token

    def _next_token(self, state: _State) -> int:
        """Position t ≥ 2 echoes source position t-1 (both behind a language code), read from the cross KV."""
        position = state.length - 1
        if position >= len(state.request.source_ids) - 1:
            return EOS_ID
        return self._slots[self._slot(state.cross_blocks, position)]

    def _finish(self, state: _State, truncated: bool) -> FinishedSequence:
        """Read the hypotheses back from every lane's KV; the newest token has none."""
        params, seq_id = state.request.params, state.request.seq_id
        written = max(2, state.length - 1)
        hypotheses = []
        for lane in range(min(params.num_hypotheses, params.num_beams)):
            ids = [self._slots[self._slot(state.self_blocks, t * params.num_beams + lane)] for t in range(1, written)]
            ids += state.tokens[written:]
            _require(ids == state.tokens[1:], f"sequence {seq_id}: the KV of lane {lane} was overwritten")
            hypotheses.append(Hypothesis(tuple(ids), -float(lane + 1)))
        return FinishedSequence(seq_id, tuple(hypotheses), truncated)

    def _misbehave(self, token: int) -> None:
        script = self._script
        if token == script.die_on:
            os.kill(os.getpid(), signal.SIGKILL)
        if token == script.hang_on:
            self._hang()
        if token == script.fatal_on:
            raise FatalRunnerError(f"scripted: token {token}")
        if token == script.raise_on:
            raise RuntimeError(f"scripted: token {token}")

    def _hang(self) -> NoReturn:
        while True:
            self._sleep(3600.0)

    # The KV pool

    def _write(self, state: _State, position: int) -> None:
        """KV of one decoder position, for all lanes."""
        num_beams, token = state.request.params.num_beams, state.tokens[position]
        for lane in range(num_beams):
            self._slots[self._slot(state.self_blocks, position * num_beams + lane)] = token

    def _slot(self, table: list[int], slot: int) -> int:
        index, offset = divmod(slot, self._block_size)
        if index >= len(table):
            raise PlanError(f"slot {slot} lies beyond a table of {len(table)} blocks")
        return table[index] * self._block_size + offset

    def _take_blocks(self, seq_id: int, blocks: tuple[int, ...]) -> None:
        for block in blocks:
            _require(0 <= block * self._block_size < len(self._slots), f"block {block} does not exist")
            _require(block not in self._owner, f"block {block} belongs to sequence {self._owner.get(block)}")
            self._owner[block] = seq_id

    def _drop_blocks(self, seq_id: int, state: _State) -> None:
        for block in self._blocks(state):
            _require(self._owner.pop(block, None) == seq_id, f"block {block} is not of sequence {seq_id}")
        state.cross_blocks, state.self_blocks = [], []

    def _blocks(self, state: _State) -> Iterator[int]:
        yield from state.cross_blocks
        yield from state.self_blocks


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise PlanError(otherwise)
