"""What the kernels of a decode pass are told about its rows: fixed shapes, so that a captured graph can be replayed.

A *row* is one position of one lane; a *slot of a sequence* (S of them, of which some are free) is where its state lies.
KV addresses follow sched/plan.py and are worked out inside the kernels from block tables and ancestry, never
materialized as one address a position.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedRows:
    """R rows, G groups of at most W rows that attend to one source, S sequences. Integers are int64.

    sequence, lane, back: [R]; a row computes position length - 1 - back of a lane; sequence -1: an empty row.
    group_sequence: [G], -1: an empty group. group_rows: [G, W], -1: an empty place.
    length, num_beams, cross_length: [S]. tokens, ancestor: [S, lanes, positions].
    self_table, cross_table: [S, blocks]. splits: over how many programs one history is divided.
    """

    sequence: Tensor
    lane: Tensor
    back: Tensor
    group_sequence: Tensor
    group_rows: Tensor
    length: Tensor
    num_beams: Tensor
    cross_length: Tensor
    tokens: Tensor
    ancestor: Tensor
    self_table: Tensor
    cross_table: Tensor
    block_size: int
    splits: int = 1


@dataclass(frozen=True, slots=True)
class PackedSources:
    """N source tokens one after another, and T query tiles over them, none of which crosses a source.

    ids, positions: [N]; slots: [N], where each token's cross KV goes, -1: padding.
    tile_start, tile_length, tile_offset: [T]; a tile's source begins at token tile_start, has tile_length tokens (0: an
    empty tile), and the tile holds at most `tile_rows` of them from tile_offset on.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    tile_start: Tensor
    tile_length: Tensor
    tile_offset: Tensor
    tile_rows: int
