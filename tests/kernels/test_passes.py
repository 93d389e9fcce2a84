"""Whole native passes and their matmuls, at every instruction set that has them, against the same in PyTorch."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.kernels.int8_linear import quantize_rows
from nllbd.kernels.native import LEVELS, Native, Quantized, load_native
from nllbd.kernels.native.passes import PackedWeight, Passes, fits

NATIVE = load_native()
WIDTH = 128

pytestmark = pytest.mark.skipif(
    NATIVE is None or not NATIVE.has_passes, reason="no native passes (no C++ compiler, or no AVX512-VNNI)"
)


@pytest.fixture(params=["vnni", "amx"])
def passes(request: pytest.FixtureRequest) -> Iterator[Passes]:
    assert NATIVE is not None
    NATIVE.set_level(request.param)
    if NATIVE.level != request.param:
        NATIVE.set_level(LEVELS[-1])
        pytest.skip(f"this processor has no {request.param}")
    yield Passes(NATIVE)
    NATIVE.set_level(LEVELS[-1])


def _weight(out_features: int, in_features: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = torch.randint(-127, 128, (out_features, in_features), dtype=torch.int8)
    return values, torch.rand(out_features) / 1000, torch.randn(out_features)


def _expected(x: Quantized, values: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    exact = x.rows.double() @ values.double().T  # integers below 2^53
    return (exact * scale.double() * x.scale.double()[:, None] + bias.double()).float()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 3, 15, 16, 17, 31, 32, 33, 65, 100, 256, 300])
@pytest.mark.parametrize("shape", [(32, 64), (64, 128), (50, 192), (1024, 704)])
def test_linear_of_any_shape(passes: Passes, rows: int, shape: tuple[int, int], threads: int) -> None:
    """Rows around a tile's and a sweep's height, outputs that fill no block, an inner size of eleven tiles."""
    passes.num_threads = threads
    values, scale, bias = _weight(*shape)
    x = Quantized(*quantize_rows(torch.randn(rows, shape[1]) * 3))
    found = passes.linear(passes.pack(values, scale, bias), x)[:, : shape[0]]
    torch.testing.assert_close(found, _expected(x, values, scale, bias), rtol=1e-6, atol=1e-6)


def test_the_largest_sums_are_exact(passes: Passes) -> None:
    values = torch.full((32, 8192), -127, dtype=torch.int8)
    x = Quantized(torch.full((2, 8192), 127, dtype=torch.int8), torch.ones(2))
    found = passes.linear(passes.pack(values, torch.ones(32), None), x)
    assert (found == -127 * 127 * 8192).all()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 80), threads=st.integers(1, 3), seed=st.integers(0, 1000))
def test_a_row_does_not_know_its_neighbours(rows: int, threads: int, seed: int) -> None:
    """The same bits alone and among others, on one thread and on several: log-probabilities included."""
    assert NATIVE is not None
    passes = Passes(NATIVE)
    torch.manual_seed(seed)
    packed = passes.pack(*_weight(1000, WIDTH))
    norm = torch.rand(WIDTH), torch.randn(WIDTH)
    hidden = torch.randn(rows, WIDTH)
    passes.num_threads = threads
    values, ids = passes.project(*norm, packed, hidden, 8)
    passes.num_threads = 1
    for row in range(0, rows, 7):
        alone = passes.project(*norm, packed, hidden[row : row + 1].contiguous(), 8)
        assert torch.equal(alone[0][0], values[row])
        assert torch.equal(alone[1][0], ids[row])


@pytest.mark.parametrize("vocab", [40, 256, 257, 5003])
@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_best_of_the_vocabulary(passes: Passes, vocab: int, rows: int, threads: int) -> None:
    passes.num_threads = threads
    values, scale, bias = _weight(vocab, WIDTH)
    weight, shift = torch.rand(WIDTH) + 0.5, torch.randn(WIDTH)
    hidden = torch.randn(rows, WIDTH)
    normed = torch.nn.functional.layer_norm(hidden, (WIDTH,), weight, shift)
    logits = _expected(Quantized(*quantize_rows(normed)), values, scale, bias)
    expected, _ = logits.log_softmax(dim=1).topk(8, dim=1)
    found, ids = passes.project(weight, shift, passes.pack(values, scale, bias), hidden, 8)
    # a value on the edge between two int8 steps may fall to either side
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=3e-2)
    own = logits.log_softmax(dim=1).gather(1, ids)
    torch.testing.assert_close(own, found, rtol=1e-3, atol=3e-2)
    assert all(len(set(row)) == 8 for row in ids.tolist())


@pytest.mark.parametrize("threads", [1, 3])
def test_among_equals_the_lower_id_is_better(passes: Passes, threads: int) -> None:
    passes.num_threads = threads
    values = torch.ones(2000, WIDTH, dtype=torch.int8)
    packed = passes.pack(values, torch.ones(2000), None)
    found, ids = passes.project(torch.ones(WIDTH), torch.zeros(WIDTH), packed, torch.randn(3, WIDTH), 6)
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    torch.testing.assert_close(found, torch.full((3, 6), -torch.log(torch.tensor(2000.0)).item()))


def test_what_fits() -> None:
    assert fits(1024, 4096)
    assert not fits(1000, 4096)
    assert not fits(1024, 4000)
    assert not fits(16384, 4096)


def test_packing_pads_to_whole_blocks(passes: Passes) -> None:
    packed: PackedWeight = passes.pack(*_weight(33, 64))
    assert packed.scale.shape == packed.bias.shape == packed.sums.shape == (64,)
    assert packed.weight.numel() == 64 * 64
    assert not packed.sums[33:].any()


def test_lower_levels_have_no_passes() -> None:
    assert isinstance(NATIVE, Native)
    NATIVE.set_level("avx2")
    try:
        assert not NATIVE.has_passes
    finally:
        NATIVE.set_level(LEVELS[-1])
