"""The attention kernels against their references: precisions, odd sizes, empty rows and groups, long histories, NaN."""

import dataclasses
import importlib

import pytest
import torch

pytest.importorskip("triton")

from nllbd.kernels import decode_attention_ref, grouped_attention_ref, packed_attention_ref
from nllbd.kernels.paged import PackedSources
from tests.kernels.paged_case import DEVICE, TOLERANCE, make_case

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
KINDS = {"decode_attention": decode_attention_ref, "grouped_attention": grouped_attention_ref}


def _check(kind: str, case, dtype: torch.dtype) -> None:
    num_rows, heads, dim = case.rows.sequence.shape[0], *case.keys.shape[1:]
    generator = torch.Generator().manual_seed(5)
    wide = torch.randn(num_rows, 3 * heads * dim, generator=generator).to(DEVICE, dtype)
    query = wide[:, : heads * dim].view(num_rows, heads, dim)  # a view with a row stride, as in the model
    kernel = getattr(importlib.import_module(f"nllbd.kernels.{kind}_triton"), kind)
    found = kernel(query, case.keys, case.values, case.rows)
    expected = getattr(KINDS[kind], kind)(query, case.keys, case.values, case.rows)
    live = case.rows.sequence >= 0
    assert not expected[live].isnan().any()
    torch.testing.assert_close(found[live], expected[live], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_precisions(kind: str, dtype: torch.dtype) -> None:
    _check(kind, make_case(dtype), dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("heads", "dim", "block_size"), [(1, 16, 1), (5, 24, 3), (2, 64, 16), (3, 100, 5)], ids=lambda value: str(value)
)
def test_odd_sizes(kind: str, heads: int, dim: int, block_size: int) -> None:
    _check(kind, make_case(torch.float32, heads=heads, dim=dim, block_size=block_size, seed=2), torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("splits", [2, 4, 8])
@pytest.mark.parametrize("longest", [3, 150])
def test_split_histories(kind: str, splits: int, longest: int) -> None:
    case = make_case(torch.float32, beams=(1, 2), max_length=longest, max_source=longest, splits=splits, seed=splits)
    _check(kind, case, torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_one_beam_each_and_many_rows(kind: str) -> None:
    case = make_case(torch.float32, beams=(1,) * 66, max_length=6, max_source=3, heads=6, empty_rows=5, seed=4)
    _check(kind, case, torch.float32)


def test_rows_behind_the_newest_position_see_only_their_past() -> None:
    case = make_case(torch.float32, beams=(2, 3), max_length=9, seed=7)
    back = torch.tensor([0, 1, 1, 0, 1, 0, 0], device=DEVICE)
    case.rows = dataclasses.replace(case.rows, back=back)
    _check("decode_attention", case, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "dim", "lengths"), [(3, 16, [1, 5, 40, 33]), (2, 24, [70]), (1, 64, [32, 64, 2])])
def test_packed_sources(dtype: torch.dtype, heads: int, dim: int, lengths: list[int]) -> None:
    kernel = importlib.import_module("nllbd.kernels.packed_attention_triton").packed_attention
    tiles = []
    start = 0
    for length in lengths:
        tiles += [(start, length, offset) for offset in range(0, length, 32)]
        start += length
    tiles += [(0, 0, 0)] * 3
    none = torch.zeros(start + 5, dtype=torch.int64, device=DEVICE)
    columns = [torch.tensor(column, device=DEVICE) for column in zip(*tiles, strict=True)]
    sources = PackedSources(none, none, none, *columns, tile_rows=32)
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(start + 5, 3 * heads * dim, generator=generator).to(DEVICE, dtype)
    qkv[start:] = torch.nan
    found = kernel(qkv, sources, heads)[:start]
    expected = packed_attention_ref.packed_attention(qkv, sources, heads)[:start]
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
