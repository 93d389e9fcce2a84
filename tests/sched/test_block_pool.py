from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.sched.block_pool import BlockPool, PoolExhausted


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_hands_out_each_block_once_and_takes_all_back(num_blocks: int, actions: list[tuple[bool, int]]) -> None:
    pool, held = BlockPool(num_blocks), []
    for takes, count in actions:
        if takes and count <= pool.num_free:
            held += pool.allocate(count)
        elif not takes:
            pool.free(held[:count])
            held = held[count:]
        pool.check_integrity(held)
        assert (pool.num_used, pool.num_free) == (len(held), num_blocks - len(held))
    pool.free(held)
    assert sorted(pool.allocate(num_blocks)) == list(range(num_blocks))


def test_too_large_an_allocation_takes_nothing() -> None:
    pool = BlockPool(3)
    pool.allocate(1)
    with pytest.raises(PoolExhausted, match="3 blocks asked for, 2 of 3 free"):
        pool.allocate(3)
    assert pool.num_free == 2


@pytest.mark.parametrize("block", [-1, 4])
def test_foreign_blocks_are_refused(block: int) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        BlockPool(4).free([block])


def test_double_free_is_found() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    pool.free(blocks)
    with pytest.raises(ValueError, match="freed twice"):
        pool.free(blocks)


@pytest.mark.parametrize("owned", [[], [0], [0, 1, 1], [0, 1, 2]])
def test_integrity_finds_leaks_double_owners_and_strangers(owned: list[int]) -> None:
    pool = BlockPool(4)
    assert sorted(pool.allocate(2)) == [0, 1]
    with pytest.raises(AssertionError):
        pool.check_integrity(owned)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BlockPool(0)
