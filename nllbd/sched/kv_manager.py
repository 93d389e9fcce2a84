"""Which blocks a sequence holds: the slot arithmetic of plan.py, counted. Computes no KV and decides no order.

Which positions have KV when
    Decoder positions count from 0: position 0 is `</s>`, position 1 the language code. `length` is how many are
    decided, so 2 at the start. A step on a sequence of `length` L writes the KV that is still missing among positions
    0 … L-1 (both at the start, one later, all of them again after a preemption) and decides position L; applying its
    result makes the length L+1. So before a step the slots of positions 0 … L-1 must be there, for every lane:
    L × num_beams slots.
    The search ends at the latest when the length reaches `max_length`. The last step therefore runs at length
    max_length-1, and position max_length-1 never needs KV. A `max_length` of 2 or less decides nothing: the runner
    finishes the sequence in the step that starts it, with KV for the two positions every sequence starts with.
    Hence the most positions a sequence ever covers: max(2, max_length - 1).
"""

from __future__ import annotations

from collections.abc import Iterable

from nllbd.sched.block_pool import BlockPool
from nllbd.sched.sequence import Sequence, SequenceRequest

START_LENGTH = 2


class KVManager:
    """Gives sequences their cross and self blocks and takes them back; exact, never one block too many."""

    def __init__(self, num_blocks: int, block_size: int = 16) -> None:
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block holds at least 1 slot")
        self.pool = BlockPool(num_blocks)
        self.block_size = block_size

    def blocks_for(self, num_slots: int) -> int:
        """Blocks that hold `num_slots` slots."""
        return -(-num_slots // self.block_size)

    def need(self, request: SequenceRequest, length: int) -> int:
        """Blocks, cross and self, of a sequence that covers `length` decoder positions."""
        cross = self.blocks_for(len(request.source_ids))
        return cross + self.blocks_for(length * request.params.num_beams)

    def max_need(self, request: SequenceRequest) -> int:
        """Blocks of the longest that the search can get; see the module's docstring."""
        return self.need(request, max(START_LENGTH, request.params.max_length - 1))

    def growth(self, seq: Sequence) -> int:
        """Blocks that are missing before a step at the present length."""
        return max(0, self.blocks_for(seq.length * seq.num_lanes) - len(seq.self_blocks))

    def allocate(self, seq: Sequence) -> None:
        """Give a sequence that holds nothing all it needs for a step at its present length."""
        if seq.cross_blocks or seq.self_blocks:
            raise ValueError(f"sequence {seq.seq_id} already holds blocks")
        num_cross = self.blocks_for(len(seq.source_ids))
        blocks = self.pool.allocate(self.need(seq.request, seq.length))
        seq.cross_blocks, seq.self_blocks = blocks[:num_cross], blocks[num_cross:]
        seq.covered = len(seq.self_blocks) * self.block_size // seq.num_lanes

    def grow(self, seq: Sequence) -> tuple[int, ...]:
        """Give a sequence what `growth` counts; returns the new self blocks, in table order.

        Raises ValueError for a sequence that should have ended at its max_length.
        """
        if seq.length >= seq.request.params.max_length:
            raise ValueError(f"sequence {seq.seq_id} has length {seq.length} and was not ended at its max_length")
        blocks = self.pool.allocate(self.growth(seq))
        seq.self_blocks += blocks
        seq.covered = len(seq.self_blocks) * self.block_size // seq.num_lanes
        return tuple(blocks)

    def free(self, seq: Sequence) -> None:
        """Take back every block of a sequence."""
        self.pool.free(seq.cross_blocks)
        self.pool.free(seq.self_blocks)
        seq.cross_blocks, seq.self_blocks, seq.covered = [], [], 0

    def check_integrity(self, holders: Iterable[Sequence]) -> None:
        """Raise AssertionError unless exactly these sequences hold blocks, each as many as its lengths ask for."""
        owned: list[int] = []
        for seq in holders:
            if len(seq.cross_blocks) != self.blocks_for(len(seq.source_ids)):
                raise AssertionError(f"sequence {seq.seq_id}: {len(seq.cross_blocks)} cross blocks")
            if len(seq.cross_blocks) + len(seq.self_blocks) > self.max_need(seq.request):
                raise AssertionError(f"sequence {seq.seq_id} holds more blocks than it can ever need")
            if seq.covered != len(seq.self_blocks) * self.block_size // seq.num_lanes:
                raise AssertionError(f"sequence {seq.seq_id}: covered is {seq.covered}")
            owned += seq.cross_blocks
            owned += seq.self_blocks
        self.pool.check_integrity(owned)
