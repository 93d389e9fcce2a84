"""The kernels that treat rows one by one (embedding, norms, KV writes, linears) against their references."""

import pytest
import torch

pytest.importorskip("triton")

from nllbd.kernels import (
    add_norm_ref,
    add_norm_triton,
    embed_rows_ref,
    embed_rows_triton,
    row_linear_ref,
    row_linear_triton,
    write_kv_ref,
    write_kv_triton,
)
from nllbd.kernels.embed_rows_ref import Embedding
from tests.kernels.paged_case import DEVICE, TOLERANCE, make_case

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [48, 1100])
def test_embed_rows(dtype: torch.dtype, width: int) -> None:
    rows = make_case(dtype, heads=1, dim=16, seed=3).rows
    rows.tokens[0, 0, rows.length[0] - 1] = 1  # a literal <pad>
    embedding = Embedding(_random(50, width, dtype=dtype), _random(40, width, seed=1), 45.25, 1, 2)
    found, slots = embed_rows_triton.embed_rows(rows, embedding)
    expected, expected_slots = embed_rows_ref.embed_rows(rows, embedding)
    live = rows.sequence >= 0
    torch.testing.assert_close(found[live], expected[live], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.equal(slots, expected_slots)
    assert slots.min() == -1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (5, 48), (3, 1100)])
@pytest.mark.parametrize("has_added", [True, False])
def test_add_norm(dtype: torch.dtype, rows: int, width: int, has_added: bool) -> None:
    hidden, added = _random(rows, width), _random(rows, width, dtype=dtype, seed=1)
    weight, bias = _random(width, seed=2), _random(width, seed=3)
    other = hidden.clone()
    found = add_norm_triton.add_norm(hidden, added if has_added else None, weight, bias, dtype)
    expected = add_norm_ref.add_norm(other, added if has_added else None, weight, bias, dtype)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])
    assert torch.equal(hidden, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_write_kv(dtype: torch.dtype) -> None:
    heads, dim = 3, 20
    wide = _random(6, 3 * heads * dim, dtype=dtype)
    key_value = wide[:, heads * dim :]
    slots = torch.tensor([4, -1, 0, 9, -1, 2], device=DEVICE)
    pools = [torch.full((2, 11, heads, dim), torch.nan, device=DEVICE, dtype=dtype) for _ in range(2)]
    write_kv_triton.write_kv(key_value, slots, *pools[0])
    write_kv_ref.write_kv(key_value, slots, *pools[1])
    assert torch.equal(pools[0].nan_to_num(7.0), pools[1].nan_to_num(7.0))
    assert pools[0].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 64, 16), (5, 100, 33), (70, 300, 16)])
@pytest.mark.parametrize("form", ["plain", "norm", "norm relu", "residual"])
def test_row_linear(dtype: torch.dtype, rows: int, inputs: int, outputs: int, form: str) -> None:
    x = _random(rows, inputs, dtype=torch.float32 if "norm" in form else dtype)
    weight, bias = _random(outputs, inputs, seed=1) / inputs**0.5, _random(outputs, dtype=dtype, seed=2)
    norm = (_random(inputs, seed=3), _random(inputs, seed=4)) if "norm" in form else None
    residual = _random(rows, outputs, seed=5) if form == "residual" else None
    results = [
        module.row_linear(
            x, weight.to(dtype), bias, norm=norm, relu="relu" in form,
            residual=None if residual is None else residual.clone(),
        )
        for module in (row_linear_triton, row_linear_ref)
    ]  # fmt: skip
    torch.testing.assert_close(*results, rtol=2 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])
