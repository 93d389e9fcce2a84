"""Frames: what goes in comes out, however the bytes are cut; garbage is an error, never a hang or a huge buffer."""

from __future__ import annotations

import itertools
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.bridge.codec import (
    MAX_FRAME_BYTES,
    CodecError,
    Heartbeat,
    Inspect,
    Inspection,
    Ready,
    Report,
    Start,
    StartFailed,
    Update,
    Work,
    client_decoder,
    encode,
    engine_decoder,
)
from nllbd.bridge.protocol import EngineConfig, EngineInfo, EngineSnapshot, EngineStats, StepTime
from nllbd.sched.sequence import (
    ClientShare,
    FinishReason,
    Hypothesis,
    Priority,
    SearchParams,
    SequenceOutcome,
    SequenceRequest,
)

ids = st.integers(0, 2**53)
tokens = st.lists(st.integers(0, 256_205), max_size=20).map(tuple)
seconds = st.floats(allow_nan=False)
params = st.builds(
    SearchParams,
    num_beams=st.integers(1, 8),
    length_penalty=st.floats(-10, 10),
    early_stopping=st.sampled_from([True, False, "never"]),
    max_length=st.integers(3, 1024),
)
requests = st.builds(
    SequenceRequest,
    seq_id=ids,
    source_ids=tokens,
    target_id=st.integers(0, 256_205),
    params=params,
    deadline=seconds,
    priority=st.sampled_from(Priority),
    client=st.text(max_size=5),
    request_id=st.text(max_size=5),
)
outcomes = st.builds(
    SequenceOutcome,
    seq_id=ids,
    reason=st.sampled_from(FinishReason),
    hypotheses=st.lists(st.builds(Hypothesis, tokens, seconds), max_size=3).map(tuple),
    message=st.text(max_size=5),
)
updates = st.builds(Update, ids, st.sampled_from(Priority), seconds)
snapshots = st.builds(
    EngineSnapshot,
    st.lists(st.builds(ClientShare, st.text(max_size=5), st.sampled_from(Priority), ids, ids, ids, ids)).map(tuple),
    ids,
    ids,
    ids,
    st.lists(st.builds(StepTime, ids, ids, ids, ids, seconds, seconds, seconds), max_size=3).map(tuple),
    st.none() | st.text(max_size=5),
)
to_engine = st.one_of(
    st.builds(Start, st.builds(EngineConfig, model_path=st.text(max_size=9)), seconds),
    st.builds(
        Work,
        st.lists(requests, max_size=3).map(tuple),
        st.lists(updates, max_size=3).map(tuple),
        st.lists(ids, max_size=3).map(tuple),
        st.none() | st.builds(Inspect, ids, st.booleans()),
    ),
)
from_engine = st.one_of(
    st.just(Ready(EngineInfo("cpu", "int8", 10, 16, 64, 512, 2, 0.5, 123))),
    st.builds(StartFailed, st.text(max_size=5), st.text(max_size=5)),
    st.builds(
        Report,
        ids,
        st.none() | st.lists(ids, max_size=5).map(tuple),
        st.lists(outcomes, max_size=3).map(tuple),
        st.none() | st.builds(EngineStats),
    ),
    st.builds(Heartbeat, ids, seconds, ids, seconds),
    st.builds(Inspection, ids, snapshots),
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(to_engine, max_size=4), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_to_the_engine_survive_any_cutting(messages: list[Work], cuts: list[int]) -> None:
    decoder = engine_decoder()
    stream = b"".join(encode(message) for message in messages)
    assert [message for part in cut(stream, cuts) for message in decoder.feed(part)] == messages


@given(st.lists(from_engine, max_size=4), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_from_the_engine_survive_any_cutting(messages: list[Report], cuts: list[int]) -> None:
    decoder = client_decoder()
    stream = b"".join(encode(message) for message in messages)
    assert [message for part in cut(stream, cuts) for message in decoder.feed(part)] == messages


@given(st.binary(max_size=200))
def test_garbage_is_a_codec_error_or_waits_for_more(data: bytes) -> None:
    decoder = client_decoder()
    try:
        decoder.feed(data)
    except CodecError:
        return


def test_a_frame_beyond_the_limit_is_refused_by_its_length_alone() -> None:
    with pytest.raises(CodecError, match="exceeds"):
        client_decoder().feed(struct.pack(">I", MAX_FRAME_BYTES + 1))


def test_a_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(CodecError, match="not a message"):
        client_decoder().feed(encode(Work()))


def test_infinite_deadlines_and_the_three_early_stoppings_keep_their_type() -> None:
    for early in (True, False, "never"):
        request = SequenceRequest(1, (4, 2), 5, SearchParams(early_stopping=early), math.inf)
        (work,) = engine_decoder().feed(encode(Work((request,))))
        assert work.requests[0] == request
        assert type(work.requests[0].params.early_stopping) is type(early)


def test_what_has_no_form_on_the_wire_is_a_value_error() -> None:
    request = SequenceRequest(1, (4, 2), 5, SearchParams(), 1.0, client="\ud800")
    with pytest.raises(ValueError, match="surrogate"):
        encode(Work((request,)))
