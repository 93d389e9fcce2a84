"""Layouts: which rows a step computes, and that prefixes which lanes share are computed once."""

import torch

from nllbd.engine.batch import Batch
from nllbd.engine.rows import decode_layout, decoder_rows, prefill_layout, share_ancestry
from nllbd.sched.sequence import SearchParams, SequenceRequest

BLOCK = 4


def _batch(*beams: int) -> Batch:
    batch = Batch(torch.device("cpu"))
    for seq_id, num_beams in enumerate(beams):
        request = SequenceRequest(seq_id, (5, 6, 2), 7, SearchParams(num_beams=num_beams), 0.0)
        base = 10 * seq_id
        row = batch.append(request, [base * BLOCK + t for t in range(3)], [base + 1, base + 2, base + 3])
        batch.columns["tokens"][row, :, :2] = torch.tensor([2, 7])
    return batch


def test_decode_has_one_row_a_lane_at_the_last_position() -> None:
    batch = _batch(2, 1)
    batch.columns["length"][:2] = torch.tensor([3, 2])
    layout = decode_layout(batch)
    rows = decoder_rows(batch, layout, BLOCK)
    assert rows.positions.tolist() == [2, 2, 1]
    assert layout.projected is None
    assert layout.lane_source.tolist() == [[0, 1], [2, 2]]
    # lane i's position t is slot t * num_beams + i of the table: positions 2 of lanes 0, 1 → slots 4, 5 → second block
    assert rows.write_slots.tolist() == [2 * BLOCK + 0, 2 * BLOCK + 1, 11 * BLOCK + 1]


def test_a_new_sequence_computes_its_two_positions_once_for_all_lanes() -> None:
    batch = _batch(4)
    layout = prefill_layout(batch, [0])
    rows = decoder_rows(batch, layout, BLOCK)
    assert rows.positions.tolist() == [0, 1]
    assert rows.tokens.tolist() == [2, 7]
    assert layout.projected is not None
    assert layout.projected.tolist() == [1]
    assert layout.lane_source.tolist() == [[0, 0, 0, 0]]


def test_a_resumed_sequence_computes_each_shared_prefix_once() -> None:
    batch = _batch(3)
    batch.columns["tokens"][0, :3, :5] = torch.tensor([[2, 7, 9, 9, 4], [2, 7, 9, 8, 4], [2, 7, 9, 9, 5]])
    batch.columns["length"][0] = 5
    share_ancestry(batch, 0)
    assert batch.columns["ancestor"][0, :3, :5].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 2]]
    rows = decoder_rows(batch, prefill_layout(batch, [0]), BLOCK)
    assert list(zip(rows.positions.tolist(), rows.tokens.tolist(), strict=True)) == [
        (0, 2), (1, 7), (2, 9), (3, 9), (4, 4), (3, 8), (4, 4), (4, 5),
    ]  # fmt: skip
    assert len(set(rows.write_slots.tolist())) == 8


def test_places_beyond_a_row_repeat_a_slot_that_is_written() -> None:
    batch = _batch(1, 1)
    batch.columns["length"][:2] = torch.tensor([6, 2])
    rows = decoder_rows(batch, decode_layout(batch), BLOCK)
    first = 11 * BLOCK
    assert rows.self_slots[1].tolist() == [first, first + 1, first, first, first, first]
    assert rows.self_lengths.tolist() == [6, 2]
