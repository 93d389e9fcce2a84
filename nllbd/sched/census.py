"""Who has how much in the engine: sequences and tokens by client and class, for people who look. Decides nothing.

Standard library only, like all of `sched`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nllbd.sched.sequence import ClientShare, Priority, Sequence, SequenceStatus


@dataclass(slots=True, eq=False)
class _Count:
    num_waiting: int = 0
    waiting_tokens: int = 0
    num_running: int = 0
    num_lanes: int = 0


def census(sequences: Iterable[Sequence]) -> list[ClientShare]:
    """One row for each client and class that has something here, the heaviest first."""
    counts: dict[tuple[str, Priority], _Count] = {}
    for seq in sequences:
        count = counts.setdefault((seq.request.client, seq.priority), _Count())
        if seq.status is SequenceStatus.RUNNING:
            count.num_running += 1
            count.num_lanes += seq.num_lanes
        else:
            count.num_waiting += 1
            count.waiting_tokens += len(seq.source_ids)
    shares = [
        ClientShare(client, priority, count.num_waiting, count.waiting_tokens, count.num_running, count.num_lanes)
        for (client, priority), count in counts.items()
    ]
    return sorted(shares, key=lambda share: (-share.num_lanes - share.num_waiting, share.client, share.priority))
