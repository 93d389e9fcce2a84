"""The native kernels, at every instruction set this processor has, against the same thing written in PyTorch."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from nllbd.kernels.attention_ref import length_mask
from nllbd.kernels.int8_linear import quantize_rows
from nllbd.kernels.native import LEVELS, Accumulator, Native, Quantized, TopK, load_native
from nllbd.kernels.self_attention_ref import self_attention

HEADS, DIM, SLOTS = 4, 24, 60  # 24: not a multiple of any vector width, so that tails are exercised
WIDTH = HEADS * DIM

pytestmark = pytest.mark.skipif(load_native() is None, reason="the native kernels were not built (no C++ compiler)")


@pytest.fixture(params=LEVELS[:3])
def native(request: pytest.FixtureRequest) -> Iterator[Native]:
    kernels = load_native()
    assert kernels is not None
    kernels.set_level(request.param)
    if kernels.level != request.param:
        kernels.set_level(LEVELS[-1])
        pytest.skip(f"this processor has no {request.param}")
    yield kernels
    kernels.set_level(LEVELS[-1])


def _acc(rows: int, width: int) -> Accumulator:
    return Accumulator(torch.randn(rows, width), torch.rand(rows) + 0.5, torch.randn(width))


def _value(acc: Accumulator) -> torch.Tensor:
    return acc.values * acc.scale[:, None] + acc.bias


def _close(found: Quantized, expected: torch.Tensor) -> None:
    """Within the rounding of int8: one unit at most, and hardly ever that."""
    rows, scale = quantize_rows(expected)
    torch.testing.assert_close(found.scale, scale, rtol=1e-3, atol=1e-7)
    difference = (found.rows.int() - rows.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.02


def _pool() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, SLOTS, HEADS, DIM).half().contiguous().unbind(0)


@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_add_norm_quantize(native: Native, rows: int, with_residual: bool) -> None:
    hidden, weight, bias = torch.randn(rows, 100) * 3 + 1, torch.randn(100), torch.randn(100)
    added = _acc(rows, 100) if with_residual else None
    expected = hidden + _value(added) if added else hidden.clone()
    found = native.add_norm_quantize(hidden, added, weight, bias)
    torch.testing.assert_close(hidden, expected)
    _close(found, functional.layer_norm(expected, (100,), weight, bias))


def test_relu_quantize(native: Native) -> None:
    acc = _acc(9, 130)
    expected = _value(acc).relu()
    _close(native.relu_quantize(acc), expected)


def test_a_row_of_zeros_has_scale_zero(native: Native) -> None:
    found = native.relu_quantize(Accumulator(torch.full((2, 40), -1.0), torch.ones(2), torch.zeros(40)))
    assert found.scale.tolist() == [0.0, 0.0]
    assert not found.rows.any()


def test_self_attention_writes_its_keys_then_reads_its_history(native: Native) -> None:
    rows = 7
    keys, values = _pool()
    qkv = _acc(rows, 3 * WIDTH)
    write_slots = torch.randperm(SLOTS)[:rows]
    lengths = torch.randint(1, 9, (rows,))
    slots = torch.randint(0, SLOTS, (rows, 9))
    slots[torch.arange(rows), lengths - 1] = write_slots
    slots[3, 0] = write_slots[5]  # a row may attend to what another row of the same pass writes
    reference_keys, reference_values = keys.clone(), values.clone()
    query, key, value = _value(qkv).chunk(3, dim=1)
    reference_keys[write_slots] = key.view(rows, HEADS, DIM).half()
    reference_values[write_slots] = value.view(rows, HEADS, DIM).half()
    found = native.self_attention(qkv, keys, values, write_slots, slots, lengths)
    torch.testing.assert_close(keys, reference_keys, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(values, reference_values, rtol=2e-3, atol=1e-3)
    expected = self_attention(query.reshape(rows, HEADS, DIM), keys.float(), values.float(), slots, lengths)
    _close(found, expected.reshape(rows, WIDTH))


def test_cross_attention_with_groups_of_unequal_size(native: Native) -> None:
    keys, values = _pool()
    query = _acc(5, WIDTH)
    slots, lengths = torch.randint(0, SLOTS, (3, 11)), torch.tensor([11, 2, 6])
    group_rows, row_places = torch.tensor([[0, 1], [2, 0], [3, 4]]), torch.tensor([0, 1, 2, 4, 5])
    found = native.cross_attention(query, keys, values, slots, lengths, group_rows, row_places)
    group_of_row = torch.tensor([0, 0, 1, 2, 2])
    expected = self_attention(
        _value(query).view(5, HEADS, DIM), keys.float(), values.float(), slots[group_of_row], lengths[group_of_row]
    )
    _close(found, expected.reshape(5, WIDTH))


def test_store_cross(native: Native) -> None:
    keys, values = _pool()
    kv, slots = _acc(6, 2 * WIDTH), torch.randperm(SLOTS)[:6]
    native.store_cross(kv, slots, keys, values)
    key, value = _value(kv).chunk(2, dim=1)
    torch.testing.assert_close(keys[slots].view(6, WIDTH).float(), key, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(values[slots].view(6, WIDTH).float(), value, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("big", [1e30, 7e4, 65519.0, 6e-8, 1e-9])
def test_half_precision_saturates_and_keeps_subnormals(native: Native, big: float) -> None:
    keys, values = _pool()
    kv = Accumulator(torch.full((1, 2 * WIDTH), big), torch.ones(1), torch.zeros(2 * WIDTH))
    native.store_cross(kv, torch.tensor([0]), keys, values)
    expected = torch.tensor(min(big, 65504.0)).half()
    assert (keys[0] == expected).all()


def test_encoder_attention_over_packed_sources(native: Native) -> None:
    lengths = [1, 5, 33]
    starts = torch.tensor([0, 1, 6, 39])
    qkv = _acc(39, 3 * WIDTH)
    query, key, value = (part.view(39, HEADS, DIM) for part in _value(qkv).chunk(3, dim=1))
    expected = torch.cat(
        [
            functional.scaled_dot_product_attention(*(part[a : a + n].transpose(0, 1) for part in (query, key, value)))
            .transpose(0, 1)
            .reshape(n, WIDTH)
            for a, n in zip(starts.tolist(), lengths, strict=False)
        ]
    )
    _close(native.encoder_attention(qkv, starts, HEADS), expected)


@pytest.mark.parametrize("size", [1000, 333, 64, 7])
def test_topk_over_tiles(native: Native, size: int) -> None:
    logits, scale = torch.randn(6, 1000) * 8, torch.rand(6) + 0.5
    best = TopK(6, 5)
    for offset in range(0, 1000, size):
        native.topk_tile(logits[:, offset : offset + size].contiguous(), scale, offset, best)
    expected, ids = (logits * scale[:, None]).log_softmax(dim=1).topk(5, dim=1)
    assert torch.equal(best.ids, ids)
    torch.testing.assert_close(best.log_probs(), expected, rtol=1e-4, atol=1e-4)


def test_equal_logits_come_by_token_id(native: Native) -> None:
    logits = torch.zeros(1, 300)
    logits[0, [250, 40, 41, 100]] = 2.0
    best = TopK(1, 4)
    native.topk_tile(logits, torch.ones(1), 0, best)
    assert best.ids.tolist() == [[40, 41, 100, 250]]


def test_batch_mates_do_not_change_a_bit(native: Native) -> None:
    keys, values = _pool()
    qkv = _acc(40, 3 * WIDTH)
    write_slots = torch.arange(40)
    slots, lengths = torch.randint(0, 40, (40, 6)), torch.randint(1, 7, (40,))
    together = native.self_attention(qkv, keys, values, write_slots, slots, lengths)
    for row in (0, 17, 39):
        part = slice(row, row + 1)
        alone = native.self_attention(
            Accumulator(qkv.values[part], qkv.scale[part], qkv.bias),
            keys,
            values,
            write_slots[part],
            slots[part],
            lengths[part],
        )
        assert torch.equal(alone.rows[0], together.rows[row])
        assert alone.scale[0] == together.scale[row]


def test_scores_of_very_unlikely_tokens_do_not_overflow(native: Native) -> None:
    best = TopK(1, 2)
    native.topk_tile(torch.tensor([[-1000.0, 1000.0, 0.0]]), torch.ones(1), 0, best)
    assert best.ids.tolist() == [[1, 2]]
    assert best.log_probs()[0].tolist() == pytest.approx([0.0, -1000.0])
    assert math.isfinite(best.total.item())


def test_length_mask_is_what_attention_ref_promises() -> None:
    assert length_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]
