"""The parent's end of the socket: never blocks, hears the dying child out, ends once."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nllbd.bridge.channel import Channel
from nllbd.bridge.codec import FromEngine, Heartbeat, Report, Work, encode, engine_decoder
from nllbd.sched.sequence import SearchParams, SequenceRequest

LARGE = Work(tuple(SequenceRequest(n, (5,) * 500, 9, SearchParams(), 0.0) for n in range(2000)))


@dataclass
class Ends:
    """Both ends, and what the parent's heard."""

    channel: Channel
    child: socket.socket
    messages: list[FromEngine] = field(default_factory=list)
    drained: list[bool] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    messages: list[FromEngine] = []
    drained: list[bool] = []
    closed: list[str] = []
    channel = Channel(ours, messages.append, lambda: drained.append(True), closed.append)
    yield Ends(channel, theirs, messages, drained, closed)
    channel.close()
    theirs.close()


async def test_a_child_that_does_not_read_keeps_one_frame_waiting(ends: Ends, kit: Any) -> None:
    ends.channel.send(LARGE)
    assert not ends.channel.can_send
    assert ends.drained == []
    ends.child.setblocking(False)
    decoder, received = engine_decoder(), []

    def read() -> bool:
        try:
            received.extend(decoder.feed(ends.child.recv(1 << 20)))
        except BlockingIOError:
            return False
        return bool(received)

    await kit.until(read)
    assert received == [LARGE]
    await kit.until(lambda: ends.drained)
    assert ends.channel.can_send


async def test_last_words_are_heard_although_writing_to_the_dead_fails(ends: Ends, kit: Any) -> None:
    last = Report(3, in_step=(7,))
    ends.child.sendall(encode(Heartbeat(3, 0.0)) + encode(last))
    ends.child.close()
    ends.channel.send(LARGE)
    assert not ends.channel.can_send
    assert ends.closed == []
    await kit.until(lambda: ends.closed)
    assert ends.messages == [Heartbeat(3, 0.0), last]
    assert len(ends.closed) == 1


async def test_garbage_ends_it(ends: Ends, kit: Any) -> None:
    ends.child.sendall(b"\xff" * 100)
    await kit.until(lambda: ends.closed)
    assert "garbage" in ends.closed[0]
    assert not ends.channel.can_send


async def test_after_close_nothing_is_called(ends: Ends, kit: Any) -> None:
    ends.channel.close()
    ends.channel.close()
    ends.child.close()
    await kit.until(lambda: True)
    assert (ends.messages, ends.closed) == ([], [])
