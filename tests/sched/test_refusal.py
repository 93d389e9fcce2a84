from __future__ import annotations

from collections.abc import Callable

import pytest

from nllbd.sched.kv_manager import KVManager
from nllbd.sched.refusal import AdmissionLimits, refuse
from nllbd.sched.sequence import FinishReason, SequenceRequest

LIMITS = AdmissionLimits(max_num_lanes=8, max_num_beams=5, max_waiting_segments=3, max_waiting_tokens=20)


@pytest.mark.parametrize(
    ("arguments", "num_waiting", "waiting_tokens", "reason"),
    [
        ((1, 5, 5, 10), 2, 15, None),
        ((1, 5, 1, 81), 0, 0, None),
        ((1, 5, 1, 82), 0, 0, FinishReason.TOO_LARGE),
        ((1, 81, 1, 10), 0, 0, FinishReason.TOO_LARGE),
        ((1, 5, 1, 10**30), 0, 0, FinishReason.TOO_LARGE),
        ((1, 5, 6, 10), 0, 0, FinishReason.TOO_LARGE),
        ((1, 5, 0, 10), 0, 0, FinishReason.FAILED),
        ((1, 0, 1, 10), 0, 0, FinishReason.FAILED),
        ((1, 5, 1, 10), 3, 0, FinishReason.OVERLOADED),
        ((1, 6, 1, 10), 1, 15, FinishReason.OVERLOADED),
        ((1, 30, 1, 10), 0, 0, None),  # more than max_waiting_tokens, but it waits alone
    ],
)
def test_refusals(
    make_request: Callable[..., SequenceRequest],
    arguments: tuple[int, ...],
    num_waiting: int,
    waiting_tokens: int,
    reason: FinishReason | None,
) -> None:
    kv = KVManager(num_blocks=11, block_size=8)
    outcome = refuse(make_request(*arguments), LIMITS, kv, num_waiting, waiting_tokens)
    assert (outcome and outcome.reason) == reason
    assert outcome is None or (outcome.seq_id == 1 and outcome.message)


def test_lanes_cap_beams_too(make_request: Callable[..., SequenceRequest]) -> None:
    limits = AdmissionLimits(max_num_lanes=2, max_num_beams=5, max_waiting_segments=3, max_waiting_tokens=20)
    outcome = refuse(make_request(1, 5, 3, 10), limits, KVManager(100), 0, 0)
    assert outcome is not None
    assert outcome.message == "num_beams is 3, this engine runs at most 2"
