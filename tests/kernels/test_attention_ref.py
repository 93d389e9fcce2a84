"""Paged attention references against attention written out for each row."""

import math

import torch

from nllbd.kernels.cross_attention_ref import cross_attention
from nllbd.kernels.self_attention_ref import self_attention

HEADS, WIDTH, SLOTS = 3, 8, 200


def _one_row(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """query [H, D]; keys, values [T, H, D]."""
    weights = torch.einsum("hd,thd->ht", query, keys).div(math.sqrt(WIDTH)).softmax(dim=1)
    return torch.einsum("ht,thd->hd", weights, values)


def _pool() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, SLOTS, HEADS, WIDTH, generator=generator).unbind(0)


def test_self_attention_reads_only_its_own_slots() -> None:
    keys, values = _pool()
    lengths = torch.tensor([1, 5, 9, 3])
    slots = torch.randint(0, SLOTS - 1, (4, 9))
    query = torch.randn(4, HEADS, WIDTH)
    out = self_attention(query, keys, values, slots, lengths)
    for row in range(4):
        own = slots[row, : lengths[row]]
        torch.testing.assert_close(out[row], _one_row(query[row], keys[own], values[own]))


def test_self_attention_in_chunks_is_the_same(monkeypatch) -> None:
    keys, values = _pool()
    slots, lengths = torch.randint(0, SLOTS, (10, 6)), torch.randint(1, 7, (10,))
    query = torch.randn(10, HEADS, WIDTH)
    whole = self_attention(query, keys, values, slots, lengths)
    monkeypatch.setattr("nllbd.kernels.self_attention_ref.MAX_GATHERED_ELEMENTS", 3 * 6 * HEADS * WIDTH)
    torch.testing.assert_close(self_attention(query, keys, values, slots, lengths), whole)


def test_cross_attention_groups_share_their_source() -> None:
    keys, values = _pool()
    slots, lengths = torch.randint(0, SLOTS, (3, 7)), torch.tensor([7, 2, 4])
    group_rows = torch.tensor([[0, 1], [2, 0], [3, 4]])  # the second group has one row only
    row_places = torch.tensor([0, 1, 2, 4, 5])
    group_of_row = [0, 0, 1, 2, 2]
    query = torch.randn(5, HEADS, WIDTH)
    out = cross_attention(query, keys, values, slots, lengths, group_rows, row_places)
    for row, group in enumerate(group_of_row):
        own = slots[group, : lengths[group]]
        torch.testing.assert_close(out[row], _one_row(query[row], keys[own], values[own]))
