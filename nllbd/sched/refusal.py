"""What is not let in, and what its outcome says. Looks at one request and a few counts; holds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from nllbd.sched.kv_manager import KVManager
from nllbd.sched.sequence import FinishReason, SequenceOutcome, SequenceRequest


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The two lane limits say what can run at all, the two waiting limits how much memory the queue may take."""

    max_num_lanes: int
    max_num_beams: int
    max_waiting_segments: int
    max_waiting_tokens: int


def refuse(
    request: SequenceRequest, limits: AdmissionLimits, kv: KVManager, num_waiting: int, waiting_tokens: int
) -> SequenceOutcome | None:
    """The outcome of a request that is not let in, or None for one that is.

    FAILED: it makes no sense. TOO_LARGE: it can never run here. OVERLOADED: not now; never said to an empty queue.
    """
    params, num_source = request.params, len(request.source_ids)
    if params.num_beams < 1 or not num_source:
        message = (
            f"{num_source} source tokens with {params.num_beams} beams cannot be translated; both must be at least 1"
        )
        return SequenceOutcome(request.seq_id, FinishReason.FAILED, message=message)
    most_beams = min(limits.max_num_beams, limits.max_num_lanes)
    if params.num_beams > most_beams:
        message = f"num_beams is {params.num_beams}, this engine runs at most {most_beams}"
        return SequenceOutcome(request.seq_id, FinishReason.TOO_LARGE, message=message)
    need = kv.max_need(request)
    if need > kv.pool.num_blocks:
        message = (
            f"{num_source} source tokens, {params.num_beams} beams and max_length {params.max_length} can need {need} "
            f"KV blocks, the pool has {kv.pool.num_blocks}; lower num_beams or max_length, or raise kv_cache_bytes"
        )
        return SequenceOutcome(request.seq_id, FinishReason.TOO_LARGE, message=message)
    full = num_waiting >= limits.max_waiting_segments or waiting_tokens + num_source > limits.max_waiting_tokens
    if full and num_waiting:
        message = f"{num_waiting} segments with {waiting_tokens} tokens already wait"
        return SequenceOutcome(request.seq_id, FinishReason.OVERLOADED, message=message)
    return None
