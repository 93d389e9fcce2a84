"""Packing sources: what is where, and few sizes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nllbd.engine.sources import SMALLEST_BUCKET, TILE_ROWS, TOKENS_A_TILE, SourceBuffers, bucket


@given(st.integers(1, 5000), st.integers(1, 100))
def test_buckets_are_few_and_tight(count: int, smallest: int) -> None:
    size = bucket(count, smallest)
    assert size >= max(count, smallest)
    assert size <= 2 if count == smallest == 2 else size < 1.5 * max(count, smallest) + 1
    assert bin(size).count("1") <= 2


@given(st.lists(st.integers(2, 90), min_size=1, max_size=30))
def test_every_token_lies_in_one_tile_of_its_source(lengths: list[int]) -> None:
    sources = [tuple(range(100 * number, 100 * number + length)) for number, length in enumerate(lengths)]
    slots = [7 + place for place in range(sum(lengths))]
    size, packed = SourceBuffers(torch.device("cpu")).fill(sources, slots)
    assert size == packed.ids.shape[0] >= SMALLEST_BUCKET
    assert packed.tile_start.shape[0] == size // TOKENS_A_TILE
    seen = []
    for start, length, offset in zip(packed.tile_start, packed.tile_length, packed.tile_offset, strict=True):
        for place in range(int(offset), min(int(offset) + TILE_ROWS, int(length))):
            assert packed.positions[start + place] == place
            seen.append(int(packed.ids[start + place]))
    assert sorted(seen) == [token for source in sources for token in source]
    assert packed.slots.tolist() == slots + [-1] * (size - len(slots))


def test_buffers_keep_their_place_and_forget_what_was_in_them() -> None:
    buffers = SourceBuffers(torch.device("cpu"))
    _, first = buffers.fill([(5, 6, 7)] * 12, list(range(36)))
    size, second = buffers.fill([(8, 9)], [3, 4])
    assert first.ids.data_ptr() == second.ids.data_ptr()
    assert second.slots.tolist() == [3, 4] + [-1] * (size - 2)
    assert second.tile_length.count_nonzero() == 1
