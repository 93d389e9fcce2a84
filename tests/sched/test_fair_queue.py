from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.sched.fair_queue import QUANTUM, REQUEST_TURN, FairQueue, work
from nllbd.sched.sequence import Sequence

Make = Callable[..., Sequence]


def drain(queue: FairQueue, count: int) -> list[Sequence]:
    return [queue.pop() for _ in range(count)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(1, 400)),
            st.tuples(st.sampled_from(["pop", "front", "remove"]), st.integers(0, 99)),
        ),
        max_size=80,
    )
)
def test_nothing_is_lost_or_doubled(make_sequence: Make, actions: list[tuple]) -> None:
    queue, inside, outside = FairQueue(), {}, {}
    for number, (action, *args) in enumerate(actions):
        if action == "push":
            client, request_id, num_source = args
            seq = inside[number] = make_sequence(number, num_source, client=client, request_id=request_id)
            queue.push(seq)
        elif action == "pop" and inside:
            peeked = queue.peek()
            seq = queue.pop()
            assert seq is peeked
            outside[seq.seq_id] = inside.pop(seq.seq_id)
        elif action == "front" and outside:
            seq = outside.pop(sorted(outside)[args[0] % len(outside)])
            seq.started_at = 0.0
            inside[seq.seq_id] = seq
            queue.push_front(seq)
        elif action == "remove" and inside:
            queue.remove(inside.pop(sorted(inside)[args[0] % len(inside)]))
        queue.check_integrity()
        assert sorted(seq.seq_id for seq in queue) == sorted(inside)
        assert len(queue) == len(inside)
    assert {queue.pop().seq_id for _ in range(len(queue))} == set(inside)
    assert queue.peek() is None
    with pytest.raises(IndexError):
        queue.pop()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300), st.integers(1, 4)), min_size=30, max_size=120))
def test_clients_that_wait_get_equal_work(make_sequence: Make, items: list[tuple[str, int, int]]) -> None:
    """The bound of deficit round robin: while all wait they differ by two turns and the largest sequence at most."""
    queue = FairQueue()
    for number, (client, num_source, num_beams) in enumerate(items):
        queue.push(make_sequence(number, num_source, num_beams, client=client))
    left = Counter(client for client, _, _ in items)
    served = dict.fromkeys(left, 0)
    largest = max(num_source * num_beams for _, num_source, num_beams in items)
    while all(left.values()):
        seq = queue.pop()
        served[seq.request.client] += work(seq)
        left[seq.request.client] -= 1
        assert max(served.values()) - min(served.values()) <= 2 * (QUANTUM + largest)


def test_requests_of_one_client_take_turns(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(2000):
        queue.push(make_sequence(number, request_id="document"))
    drain(queue, 10)
    queue.push(make_sequence(5000, request_id="line"))
    a_turn = REQUEST_TURN // work(make_sequence(0)) + 1
    assert 5000 in {seq.seq_id for seq in drain(queue, a_turn + 1)}


def test_a_turn_is_a_bounded_amount_of_work(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(600):
        queue.push(make_sequence(number, 20, 4, request_id="abc"[number % 3]))
    turns = [[queue.pop().request.request_id for _ in range(7)] for _ in range(12)]
    assert [set(turn) for turn in turns] == [{"a"}, {"b"}, {"c"}] * 4  # 7 × 80 is the first to reach 512


def test_a_request_keeps_its_order(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(20):
        queue.push(make_sequence(number, request_id="r"))
    assert [seq.seq_id for seq in drain(queue, 20)] == list(range(20))


def test_what_was_preempted_goes_first_and_is_not_charged_again(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(5):
        queue.push(make_sequence(number, 100, client="c", request_id=f"r{number}"))
    first = queue.pop()
    first.started_at = 1.0
    queue.push_front(first)
    assert work(first) == 0
    assert queue.pop() is first


def test_leaving_does_not_pay_a_debt(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(100):
        queue.push(make_sequence(number, 100, client="patient"))
    queue.push(make_sequence(1000, 4 * QUANTUM, client="greedy"))
    while queue.pop().request.client != "greedy":
        pass
    queue.push(make_sequence(1001, 4 * QUANTUM, client="greedy"))
    patient_work = 0
    while (seq := queue.pop()).request.client == "patient":
        patient_work += work(seq)
    assert patient_work >= 3 * QUANTUM
