"""What crosses between the daemon and its engine process: messages as length-prefixed MessagePack frames. Sans-I/O.

A frame is four bytes of length, big-endian, and that many bytes of one tagged message. Both ends feed what they read
into a `Decoder` and write what `encode` returns. Knows no socket, no process and no policy.
"""

from __future__ import annotations

import struct
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from nllbd.bridge.protocol import EngineConfig, EngineInfo, EngineSnapshot, EngineStats
from nllbd.sched.sequence import Priority, SequenceOutcome, SequenceRequest

MAX_FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")


class CodecError(Exception):
    """The other end sent what no version of us sends; the connection is of no further use."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """Parent's first message: what to build, and how often to say that one is alive."""

    config: EngineConfig
    heartbeat_s: float


class Update(msgspec.Struct, frozen=True, array_like=True):
    """New class and deadline (a monotonic instant) of a sequence."""

    seq_id: int
    priority: Priority
    deadline: float


class Inspect(msgspec.Struct, frozen=True, array_like=True):
    """A question about the engine itself; `check`: whether its books balance, too."""

    token: int
    check: bool


class Work(msgspec.Struct, frozen=True, tag=True):
    """Parent to child: take these, in this order: requests, updates, aborts; and answer, if there is a question."""

    requests: tuple[SequenceRequest, ...] = ()
    updates: tuple[Update, ...] = ()
    aborts: tuple[int, ...] = ()
    inspect: Inspect | None = None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Child: the engine is built."""

    info: EngineInfo


class StartFailed(msgspec.Struct, frozen=True, tag=True):
    """Child: the engine cannot be built, and why. `code` is that of a typed error."""

    code: str
    message: str


class Report(msgspec.Struct, frozen=True, tag=True):
    """Child, at most once a step and just before it: which sequences the step holds, and what ended since the last.

    in_step: ids, those that joined last at the end; None = as in the last report. It must leave the child before the
    step begins, for the step may kill it.
    """

    step: int
    in_step: tuple[int, ...] | None = None
    outcomes: tuple[SequenceOutcome, ...] = ()
    stats: EngineStats | None = None


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """Child, from a thread of its own. `step_s`: how long the current step has lasted; 0 between steps.

    num_steps, longest_s: how many steps have ended, and how long the longest of the recent ones took.
    """

    step: int
    step_s: float
    num_steps: int = 0
    longest_s: float = 0.0


class Inspection(msgspec.Struct, frozen=True, tag=True):
    """Child: the answer to the `Inspect` with this token."""

    token: int
    snapshot: EngineSnapshot


ToEngine: TypeAlias = Start | Work
FromEngine: TypeAlias = Ready | StartFailed | Report | Heartbeat | Inspection

Message = TypeVar("Message", ToEngine, FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    """One frame.

    Raises CodecError if it would exceed MAX_FRAME_BYTES, and ValueError, TypeError or OverflowError when a value has
    no MessagePack form (a lone surrogate, an integer beyond 64 bits).
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise CodecError(f"a message of {len(body)} bytes exceeds the frame limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Decoder(Generic[Message]):
    """Bytes in, messages out; keeps what is incomplete. Memory: one frame at most, plus what is fed at once."""

    def __init__(self, message_type: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(message_type)
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """The messages that `data` completes, in order. Raises CodecError on what is not a frame of ours."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while (end := self._frame_end(start)) is not None:
            messages.append(self._decode(start + _LENGTH.size, end))
            start = end
        del self._buffer[:start]
        return messages

    def _frame_end(self, start: int) -> int | None:
        if len(self._buffer) - start < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > MAX_FRAME_BYTES:
            raise CodecError(f"a frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}")
        end = start + _LENGTH.size + int(length)
        return end if end <= len(self._buffer) else None

    def _decode(self, start: int, end: int) -> Message:
        try:
            return self._decoder.decode(bytes(self._buffer[start:end]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CodecError(f"not a message: {error}") from None


def engine_decoder() -> Decoder[ToEngine]:
    """What the child decodes with."""
    return Decoder(ToEngine)


def client_decoder() -> Decoder[FromEngine]:
    """What the parent decodes with."""
    return Decoder(FromEngine)
