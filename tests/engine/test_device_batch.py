"""Where rows lie, what is sent when, and that state survives a round trip."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nllbd.engine.device_batch import BatchSize, DeviceBatch, Placed
from nllbd.sched.sequence import SearchParams, SequenceRequest

SIZE = BatchSize(sequences=12, lanes=8, positions=20, self_blocks=6, cross_blocks=3, rows=128)
CPU = torch.device("cpu")


def _request(seq_id: int, beams: int) -> SequenceRequest:
    return SequenceRequest(seq_id, (5, 6, 2), 7, SearchParams(beams, 1.4, "never", 15), 0.0)


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_each_lane_has_its_row_and_each_row_its_place_in_a_group(kinds, rng) -> None:
    batch = DeviceBatch(CPU, SIZE, block_size=4)
    slots = sorted(rng.sample(range(12), len(kinds)))
    placed = [Placed(slot, beams, fresh) for slot, (beams, fresh) in zip(slots, kinds, strict=True)]
    num_rows = batch.arrange(placed)
    batch.flush()
    widest = max(beams for beams, _ in kinds)
    assert widest <= batch.num_lanes < 2 * widest
    assert len(batch) == slots[-1] + 1
    rows = batch.rows(num_rows + 3, batch.num_lanes, splits=1)
    assert rows.sequence.tolist()[num_rows:] == [-1] * 3
    cells = list(zip(rows.sequence.tolist(), rows.lane.tolist(), rows.back.tolist(), strict=True))[:num_rows]
    expected = []
    for slot, beams, fresh in ((item.slot, item.num_beams, item.fresh) for item in placed):
        expected += [(slot, 0, 1), (slot, 0, 0)] if fresh else [(slot, lane, 0) for lane in range(beams)]
    assert cells == expected
    for item in placed:
        for lane in range(item.num_beams):
            row = int(batch.lane_source[item.slot, lane])
            assert cells[row] == (item.slot, 0 if item.fresh else lane, 0)
    grouped = []
    for slot, members in zip(rows.group_sequence.tolist(), rows.group_rows.tolist(), strict=True):
        own = [row for row in members if row >= 0]
        assert all(cells[row][0] == slot for row in own)
        grouped += own
    assert sorted(grouped) == list(range(num_rows))


def test_settings_and_blocks_arrive_with_the_next_flush_and_only_then() -> None:
    batch = DeviceBatch(CPU, SIZE, block_size=4)
    batch.start([3, 1], [_request(1, 4), _request(2, 1)], start_id=2)
    batch.set_cross_blocks(3, (11, 12))
    batch.add_self_blocks(3, 0, (8, 9))
    batch.add_self_blocks(3, 2, (10,))
    assert batch.columns["num_beams"].tolist() == [0] * 12
    batch.flush()
    assert batch.columns["num_beams"].tolist() == [0, 1, 0, 4] + [0] * 8
    assert batch.columns["early_stopping"][[1, 3]].tolist() == [1, 2]  # one beam is greedy, whatever is asked for
    assert batch.columns["penalty"][3].item() == 1.4
    rows = batch.rows(1, 1, 1)
    assert rows.self_table[3].tolist() == [8, 9, 10, 0, 0, 0]
    assert rows.cross_table[3].tolist() == [11, 12, 0]
    assert rows.cross_length[3] == 3
    batch.free(3)
    assert batch.columns["num_beams"][3] == 4
    batch.flush()
    assert batch.columns["num_beams"][3] == 0


def test_buffers_keep_their_place() -> None:
    batch = DeviceBatch(CPU, SIZE, block_size=4)
    before = [tensor.data_ptr() for tensor in (*batch.columns.values(), batch.lane_source)]
    batch.start([0], [_request(1, 4)], start_id=2)
    batch.arrange([Placed(0, 4, True)])
    batch.flush()
    batch.clear()
    batch.flush()
    assert before == [tensor.data_ptr() for tensor in (*batch.columns.values(), batch.lane_source)]


def test_a_saved_search_is_restored_in_another_slot() -> None:
    batch = DeviceBatch(CPU, SIZE, block_size=4)
    batch.start([2], [_request(1, 3)], start_id=2)
    tokens = torch.tensor([[2, 7, 5, 6], [2, 7, 5, 8], [2, 7, 9, 6]])
    batch.columns["tokens"][2, :3, :4] = tokens
    batch.columns["length"][2] = 4
    batch.columns["scores"][2, :3] = torch.tensor([-1.0, -2.0, -3.0])
    saved = batch.save(2, num_beams=3, length=4)
    batch.free(2)
    batch.start([5], [_request(1, 3)], start_id=2)
    ancestor = batch.restore(5, saved)
    assert ancestor.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 2]]
    assert torch.equal(batch.columns["tokens"][5, :3, :4], tokens)
    assert batch.columns["scores"][5, :3].tolist() == [-1.0, -2.0, -3.0]
    assert batch.columns["ancestor"][5, :3, :4].tolist() == ancestor.tolist()
    rows = batch.prefill_rows(5, ancestor)
    cells = sorted(zip(rows.lane.tolist(), (3 - rows.back).tolist(), strict=True))
    assert cells == [(0, 0), (0, 1), (0, 2), (2, 2)]  # the newest position is the next step's


def test_finished_hypotheses_are_read_with_their_scores_exact() -> None:
    batch = DeviceBatch(CPU, SIZE, block_size=4)
    batch.columns["finished_scores"][4, :2] = torch.tensor([-0.123456789, -torch.inf])
    batch.columns["finished_lengths"][4, :2] = torch.tensor([3, 0])
    batch.columns["finished_tokens"][4, 0, :3] = torch.tensor([2, 7, 2])
    (table,) = batch.read_finished([4], lanes=2, positions=5)
    assert table[:, 0].view(torch.float64).tolist() == batch.columns["finished_scores"][4, :2].tolist()
    assert table[:, 1].tolist() == [3, 0]
    assert table[0, 2:].tolist() == [2, 7, 2, 0, 0]
