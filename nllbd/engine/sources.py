"""Sources on their way into the encoder: packed, padded to one of few sizes, in buffers that keep their place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from nllbd.model.paged import PackedSources

TILE_ROWS = 32
TOKENS_A_TILE = 4  # so many tokens of a bucket go with one tile; the shortest of sources decide
SMALLEST_BUCKET = 64


def bucket(count: int, smallest: int = 1) -> int:
    """The least 2^n or 3·2^n that is neither below `count` nor below `smallest`."""
    count = max(count, smallest)
    power = 1 << (count - 1).bit_length()
    return 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power


class SourceBuffers:
    """One set of buffers a size. `fill` returns the size and where the sources lie on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[int, tuple[Tensor, PackedSources]] = {}

    def fill(self, sources: Sequence[Sequence[int]], slots: Sequence[int]) -> tuple[int, PackedSources]:
        """slots: where the cross KV of each token goes, one source after another."""
        lengths = [len(source) for source in sources]
        starts = list(itertools.accumulate(lengths, initial=0))
        tiles = [
            (start, length, offset)
            for start, length in zip(starts, lengths, strict=False)
            for offset in range(0, length, TILE_ROWS)
        ]
        size = bucket(max(starts[-1], TOKENS_A_TILE * len(tiles)), SMALLEST_BUCKET)
        tokens = torch.zeros((3, size), dtype=torch.int64)
        tokens[0, : starts[-1]] = torch.tensor([token for source in sources for token in source])
        tokens[1, : starts[-1]] = torch.tensor([i for length in lengths for i in range(length)])
        tokens[2] = -1
        tokens[2, : starts[-1]] = torch.tensor(slots)
        places = torch.zeros((3, size // TOKENS_A_TILE), dtype=torch.int64)
        places[:, : len(tiles)] = torch.tensor(tiles).T
        host = torch.cat([tokens.flatten(), places.flatten()])
        flat, packed = self._of_size(size)
        flat.copy_(host.pin_memory() if self._device.type == "cuda" else host, non_blocking=True)
        return size, packed

    def _of_size(self, size: int) -> tuple[Tensor, PackedSources]:
        if size not in self._buffers:
            num_tiles = size // TOKENS_A_TILE
            flat = torch.zeros(3 * (size + num_tiles), dtype=torch.int64, device=self._device)
            ids, positions, slots = flat[: 3 * size].view(3, size).unbind(0)
            start, length, offset = flat[3 * size :].view(3, num_tiles).unbind(0)
            self._buffers[size] = flat, PackedSources(ids, positions, slots, start, length, offset, TILE_ROWS)
        return self._buffers[size]
