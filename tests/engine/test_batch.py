"""The running batch: rows survive growth, removal, saving and restoring."""

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from nllbd.engine.batch import COLUMNS, Batch
from nllbd.sched.sequence import SearchParams, SequenceRequest


def _request(seq_id: int, num_beams: int) -> SequenceRequest:
    return SequenceRequest(seq_id, (5, 2), 7, SearchParams(num_beams=num_beams, max_length=400), 0.0)


def _mark(batch: Batch, row: int, value: int, length: int) -> None:
    batch.reserve_positions(length)
    batch.columns["length"][row] = length
    for name in ("tokens", "finished_tokens"):
        batch.columns[name][row, :, :length] = value


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=40), st.integers(0, 1000))
def test_rows_keep_their_contents_while_others_come_and_go(script: list[tuple[int, bool]], seed: int) -> None:
    rng = random.Random(seed)
    batch = Batch(torch.device("cpu"))
    lengths: dict[int, int] = {}
    for seq_id, (num_beams, remove) in enumerate(script):
        row = batch.append(_request(seq_id, num_beams), [3, 4], [seq_id])
        batch.grow(seq_id, [seq_id + 100] * rng.randrange(12))
        lengths[seq_id] = rng.randrange(2, 90)
        _mark(batch, row, seq_id, lengths[seq_id])
        if remove and rng.random() < 0.5:
            victims = rng.sample(sorted(lengths), k=min(len(lengths), 2))
            batch.remove([*victims, 999_999])
            for victim in victims:
                del lengths[victim]
    assert sorted(batch.seq_ids) == sorted(lengths)
    for seq_id, length in lengths.items():
        row = batch.rows[seq_id]
        beams = batch.requests[row].params.num_beams
        assert (batch.columns["tokens"][row, :beams, :length] == seq_id).all()
        assert batch.columns["self_table"][row, 0] == seq_id
        assert batch.columns["num_beams"][row] == beams
    assert batch.num_lanes == max((batch.requests[r].params.num_beams for r in range(len(batch))), default=1)


def test_a_saved_row_comes_back_equal_into_another_batch() -> None:
    batch, other = Batch(torch.device("cpu")), Batch(torch.device("cpu"))
    row = batch.append(_request(1, 4), [3, 4], [0])
    _mark(batch, row, 42, 70)
    batch.columns["scores"][row, :4] = torch.arange(4.0)
    batch.columns["finished"][row, 2] = True
    saved = batch.save(1)
    other.append(_request(0, 1), [1], [5])
    back = other.append(_request(1, 4), [8, 9], [6])
    other.restore(back, saved)
    for name, column in COLUMNS.items():
        if column.kept:
            part = tuple(slice(size) for size in saved[name].shape)
            assert torch.equal(other.columns[name][back][part], saved[name]), name
    assert other.columns["cross_slots"][back, :2].tolist() == [8, 9]  # addresses are the new ones


def test_a_saved_row_is_a_copy() -> None:
    batch = Batch(torch.device("cpu"))
    row = batch.append(_request(1, 2), [3], [0])
    saved = batch.save(1)
    batch.columns["scores"][row] = 5.0
    assert saved["scores"][0] == 0.0
