from __future__ import annotations

from nllbd.sched.census import census
from nllbd.sched.sequence import ClientShare, Priority, SearchParams, Sequence, SequenceRequest, SequenceStatus

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def sequence(client: str, priority: Priority, tokens: int, running: bool) -> Sequence:
    request = SequenceRequest(0, (7,) * tokens, 9, SearchParams(num_beams=3), 1.0, priority, client)
    return Sequence(request, 0.0, status=SequenceStatus.RUNNING if running else SequenceStatus.WAITING)


def test_rows_by_client_and_class_heaviest_first() -> None:
    sequences = [
        sequence("a", INTERACTIVE, 5, running=False),
        sequence("b", BULK, 4, running=True),
        sequence("b", BULK, 6, running=False),
        sequence("b", INTERACTIVE, 2, running=False),
        sequence("b", BULK, 8, running=True),
    ]
    assert census(sequences) == [
        ClientShare("b", BULK, 1, 6, 2, 6),
        ClientShare("a", INTERACTIVE, 1, 5, 0, 0),
        ClientShare("b", INTERACTIVE, 1, 2, 0, 0),
    ]
    assert census([]) == []
