"""Builders of requests and sequences for the scheduler's tests. Session-wide, so that Hypothesis may use them too."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from nllbd.sched.sequence import Priority, SearchParams, Sequence, SequenceRequest

MakeRequest = Callable[..., SequenceRequest]
MakeSequence = Callable[..., Sequence]


def _make_request(
    seq_id: int,
    num_source: int = 5,
    num_beams: int = 1,
    max_length: int = 32,
    *,
    client: str = "",
    request_id: str = "",
    priority: Priority = Priority.INTERACTIVE,
    deadline: float = math.inf,
    request_tokens: int = 0,
) -> SequenceRequest:
    source_ids = (200, *range(10, 10 + num_source - 2), 2)[:num_source]
    params = SearchParams(num_beams=num_beams, max_length=max_length)
    return SequenceRequest(seq_id, source_ids, 201, params, deadline, priority, client, request_id, request_tokens)


@pytest.fixture(scope="session")
def make_request() -> MakeRequest:
    return _make_request


@pytest.fixture(scope="session")
def make_sequence() -> MakeSequence:
    def make(seq_id: int, *args: object, **kwargs: object) -> Sequence:
        return Sequence(_make_request(seq_id, *args, **kwargs), arrival=0.0, ordinal=seq_id)  # type: ignore[arg-type]

    return make
