"""The pool of KV blocks: numbers 0 … num_blocks-1, each free or handed out, never both, never twice.

Standard library only. It knows nothing of sequences, positions or tensors; kv_manager.py gives the numbers meaning.
"""

from __future__ import annotations

from collections.abc import Iterable


class PoolExhausted(Exception):
    """More blocks were asked for than are free. The scheduler asks `num_free` first, so this is a bug in the caller."""


class BlockPool:
    """A free list with exact accounting. Blocks freed last are handed out first: their memory is warm."""

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"a pool of {num_blocks} blocks cannot hold anything; give at least 1")
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._is_used = bytearray(num_blocks)

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks. Raises PoolExhausted, having taken none, when fewer are free."""
        if count < 0 or count > len(self._free):
            raise PoolExhausted(f"{count} blocks asked for, {len(self._free)} of {self.num_blocks} free")
        if count == 0:
            return []
        taken = self._free[-count:]
        del self._free[-count:]
        for block in taken:
            self._is_used[block] = 1
        return taken

    def free(self, blocks: Iterable[int]) -> None:
        """Give blocks back. Raises ValueError at the first one that is not handed out."""
        for block in blocks:
            if not 0 <= block < self.num_blocks:
                raise ValueError(f"block {block} does not belong to a pool of {self.num_blocks}")
            if not self._is_used[block]:
                raise ValueError(f"block {block} is freed twice")
            self._is_used[block] = 0
            self._free.append(block)

    def check_integrity(self, owned: Iterable[int]) -> None:
        """Raise AssertionError unless the blocks handed out are exactly `owned`, each by one owner."""
        held = list(owned)
        if len(set(held)) != len(held):
            raise AssertionError("a block has two owners")
        if len(set(self._free)) != len(self._free):
            raise AssertionError("a block is twice in the free list")
        used = {block for block in range(self.num_blocks) if self._is_used[block]}
        if used != set(held):
            raise AssertionError(f"leaked blocks {sorted(used - set(held))}, lost blocks {sorted(set(held) - used)}")
        if used & set(self._free) or len(used) + len(self._free) != self.num_blocks:
            raise AssertionError("the free list and the used marks contradict each other")
