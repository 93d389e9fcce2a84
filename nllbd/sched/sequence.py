"""What the scheduler schedules: sequences, and the plain data that describes them.

Standard library only. A *sequence* is one segment (sentence) inside the engine, with `num_beams` *lanes*. The frozen
dataclasses here cross the bridge between the daemon and the engine process, so they hold plain values only.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal

EarlyStopping = bool | Literal["never"]


class Priority(enum.IntEnum):
    """Scheduling class; a lower value goes first."""

    INTERACTIVE = 0
    BULK = 1


class SequenceStatus(enum.Enum):
    """Each status is exactly one container of the scheduler."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class FinishReason(enum.StrEnum):
    """How a sequence ended. Everything but STOP and LENGTH carries no hypotheses."""

    STOP = "stop"  # the search ended by its own rules
    LENGTH = "length"  # the best hypothesis was cut at max_length
    ABORTED = "aborted"  # nobody waits for it any more
    DEADLINE = "deadline"  # its deadline passed first
    TOO_LARGE = "too_large"  # its KV need at max_length exceeds the whole pool
    OVERLOADED = "overloaded"  # the inbox was full
    FAILED = "failed"  # it made the engine fail, alone (quarantined, or a step raised on it)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Beam search settings of one sequence, in transformers' meaning.

    `max_length` counts every decoder token, the initial `</s>` and the language code included.
    `num_hypotheses` (≤ num_beams) is how many finished hypotheses are returned, best first.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = True
    max_length: int = 512
    num_hypotheses: int = 1


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """One segment as submitted to the engine.

    `source_ids` is the full encoder input, language code and `</s>` included; `target_id` the forced first token.
    `deadline` is a `time.monotonic()` instant (system-wide on Linux, so it holds in the child process too).
    `client` and `request_id` are the two levels of fairness; neither is a metrics label. `request_tokens`: the source
    tokens of all that the request asks for, as small ones go before large ones; 0 = not known.
    """

    seq_id: int
    source_ids: tuple[int, ...]
    target_id: int
    params: SearchParams
    deadline: float
    priority: Priority = Priority.INTERACTIVE
    client: str = ""
    request_id: str = ""
    request_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished translation: ids after the initial `</s>` (code first, `</s>` last unless cut), score / L**p."""

    token_ids: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class SequenceOutcome:
    """The one outcome of a sequence. `message` explains a FAILED or TOO_LARGE one.

    `peak_lanes`: the most lanes that the batch had while it was in it, all sequences' together.
    """

    seq_id: int
    reason: FinishReason
    hypotheses: tuple[Hypothesis, ...] = ()
    message: str = ""
    queue_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    num_steps: int = 0
    num_preemptions: int = 0
    peak_lanes: int = 0


@dataclass(frozen=True, slots=True)
class ClientShare:
    """What one client has in the engine, in one class."""

    client: str
    priority: Priority
    num_waiting: int
    waiting_tokens: int
    num_running: int
    num_lanes: int


@dataclass(slots=True, eq=False)
class Sequence:
    """The scheduler's record of one request. Owned by the scheduler alone.

    Attributes:
        arrival, ordinal: clock instant and running number of its arrival (the number decides, it has no ties).
        length: how many decoder positions are decided, counting `</s>` and the code (so 2 at the start); of these
            `length - 1` have their KV written, the last one gets it in the next step. See kv_manager.py.
        covered: how many decoder positions `self_blocks` has slots for, for all lanes.
        suspect_length: `length` at which a step raised with it on board; it is innocent once it is longer.
        started_at … peak_lanes: for its outcome; the two marks are explained in running.py.
    """

    request: SequenceRequest
    arrival: float
    ordinal: int = 0
    status: SequenceStatus = SequenceStatus.WAITING
    length: int = 2
    covered: int = 0
    cross_blocks: list[int] = field(default_factory=list)
    self_blocks: list[int] = field(default_factory=list)
    suspect_length: int = 0
    started_at: float | None = None
    encode_s: float = 0.0
    decode_s: float = 0.0
    decode_mark_s: float = 0.0
    num_steps: int = 0
    step_mark: int = 0
    num_preemptions: int = 0
    peak_lanes: int = 0

    @property
    def seq_id(self) -> int:
        return self.request.seq_id

    @property
    def num_lanes(self) -> int:
        return self.request.params.num_beams

    @property
    def source_ids(self) -> Seq[int]:
        return self.request.source_ids

    @property
    def priority(self) -> Priority:
        return self.request.priority
