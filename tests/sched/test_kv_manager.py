from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.sched.kv_manager import KVManager
from nllbd.sched.sequence import Sequence


@given(st.integers(1, 33), st.integers(1, 60), st.integers(1, 9), st.integers(-2, 70))
def test_a_sequence_always_has_the_slots_it_writes_and_never_a_block_more(
    make_sequence: Callable[..., Sequence], block_size: int, num_source: int, num_beams: int, max_length: int
) -> None:
    kv = KVManager(num_blocks=2000, block_size=block_size)
    seq = make_sequence(1, num_source, num_beams, max_length)
    kv.allocate(seq)
    while True:
        slots_written = seq.length * num_beams  # positions 0 … length-1 of all lanes
        assert (len(seq.self_blocks) - 1) * block_size < slots_written <= len(seq.self_blocks) * block_size
        assert seq.covered >= seq.length
        kv.check_integrity([seq])
        if seq.length + 1 >= max_length:  # this step decides the last position, or none
            break
        seq.length += 1
        growth = kv.growth(seq)
        assert growth == 0 or seq.length > seq.covered
        assert len(kv.grow(seq)) == growth
    assert len(seq.cross_blocks) == -(-num_source // block_size)
    assert len(seq.cross_blocks) + len(seq.self_blocks) == kv.max_need(seq.request)
    kv.free(seq)
    kv.check_integrity([])
    assert kv.pool.num_free == 2000


def test_the_contract_by_example(make_sequence: Callable[..., Sequence]) -> None:
    kv = KVManager(num_blocks=100, block_size=16)
    seq = make_sequence(1, 17, 4, 10)
    assert kv.max_need(seq.request) == 2 + 3  # 17 source slots, and 9 positions of 4 lanes
    kv.allocate(seq)
    assert (len(seq.cross_blocks), len(seq.self_blocks), seq.covered) == (2, 1, 4)


def test_a_sequence_cannot_hold_twice_or_outgrow_its_max_length(make_sequence: Callable[..., Sequence]) -> None:
    kv = KVManager(num_blocks=100, block_size=1)
    seq = make_sequence(1, 5, 1, 3)
    kv.allocate(seq)
    with pytest.raises(ValueError, match="already holds"):
        kv.allocate(seq)
    seq.length = 3
    with pytest.raises(ValueError, match="not ended at its max_length"):
        kv.grow(seq)


def test_integrity_finds_a_sequence_with_the_wrong_blocks(make_sequence: Callable[..., Sequence]) -> None:
    kv = KVManager(num_blocks=10, block_size=4)
    seq = make_sequence(1)
    kv.allocate(seq)
    stolen = seq.self_blocks.pop()
    with pytest.raises(AssertionError, match="covered"):
        kv.check_integrity([seq])
    seq.self_blocks.append(stolen)
    with pytest.raises(AssertionError, match="leaked"):
        kv.check_integrity([])
