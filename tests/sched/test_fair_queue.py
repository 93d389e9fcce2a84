from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.sched.fair_queue import OVERTAKING, QUANTUM, FairQueue, work
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


def test_a_line_overtakes_a_document_that_waits(make_sequence: Make) -> None:
    queue = FairQueue()
    for number in range(2000):
        queue.push(make_sequence(number, request_id="document"))  # its size is not announced: it shows
    drain(queue, 10)
    queue.push(make_sequence(5000, request_id="line"))
    assert queue.pop().seq_id == 5000


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=2, max_size=60))
def test_what_overtakes_a_request_is_bounded_by_its_size(make_sequence: Make, items: list[tuple[int, int]]) -> None:
    """Requests of one client arrive, each followed by some pops: later ones that began sooner are OVERTAKING times as
    much at most."""
    queue, begun = FairQueue(), []

    def pop() -> None:
        number = int(queue.pop().request.request_id)
        if number not in begun:
            begun.append(number)

    for number, (num_sentences, num_pops) in enumerate(items):
        for place in range(num_sentences):
            queue.push(
                make_sequence(100 * number + place, 10, request_id=str(number), request_tokens=10 * num_sentences)
            )
        for _ in range(min(num_pops, len(queue))):
            pop()
    while len(queue):
        pop()
    for place, number in enumerate(begun):
        overtook = sum(items[other][0] for other in begun[:place] if other > number)
        assert overtook <= OVERTAKING * items[number][0]


def test_lines_do_not_stop_a_document(make_sequence: Make) -> None:
    """One that never ends coming: the document's turn comes all the same."""
    queue = FairQueue()
    for number in range(30):
        queue.push(make_sequence(number, 10, request_id="document", request_tokens=300))
    for number in range(100, 100 + 30 * OVERTAKING + 1):
        queue.push(make_sequence(number, 10, request_id=f"line{number}"))
        if queue.pop().request.request_id == "document":
            return
    raise AssertionError("the document never had its turn")


def test_what_has_left_does_not_fill_the_memory(make_sequence: Make) -> None:
    queue = FairQueue()
    queue.push(make_sequence(0, request_id="stays"))
    for number in range(1, 5000):
        seq = make_sequence(number, request_id=f"r{number}")
        queue.push(seq)
        queue.remove(seq)
    (client,) = queue._clients.values()
    assert len(client._heap) < 200


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
