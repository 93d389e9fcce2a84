"""The CPU kernels at the 600M shape: against their PyTorch forms, and against what the machine can do.

    python -m bench.micro_kernels [--rows 1 8 32 128] [--repeats 20]

Two ceilings are measured first: memory bandwidth (the fastest of some reads of a table far larger than the caches) and
the int8 peak (the fastest of some large matmuls, whichever kernel of PyTorch does it). A kernel that reads more than it
computes is held against the first, one that computes more than it reads against the second; `bound` names the one that
it cannot beat; what lies in a cache, as a few rows do, may. `error`: the largest difference from the PyTorch form,
relative to its largest value.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench import common, plot
from nllbd.kernels.cross_attention_ref import cross_attention
from nllbd.kernels.int8_linear import Int8Linear, quantize_rows
from nllbd.kernels.native import Accumulator, Native, Quantized, TopK, load_native
from nllbd.kernels.native.passes import Passes
from nllbd.kernels.self_attention_ref import self_attention

WIDTH, HEADS, FFN, VOCAB = 1024, 16, 4096, 256_206
HEAD = WIDTH // HEADS
TILE_ROWS = 8192
BEAMS, HISTORY, SOURCE = 4, 24, 20  # tokens: about a sentence's
NUM_BEST = 2 * BEAMS
NUM_LAYERS = 32  # so many weights take turns: together they fit into no cache, as in a model


@dataclass(frozen=True)
class Case:
    """One kernel on so many rows. `num_bytes` must be read or written whatever one does, `operations` computed; both
    calls return float32 of the same shape, or None where there is nothing to compare."""

    kernel: str
    rows: int
    native: Callable[[], Tensor | None]
    plain: Callable[[], Tensor | None]
    num_bytes: int
    operations: int


@dataclass(frozen=True)
class Ceilings:
    """Bytes and int8 operations a second that this machine reached."""

    bandwidth: float
    operations: float


def measure_ceilings(num_bytes: int = 1 << 29, size: int = 2048) -> Ceilings:
    """The fastest of several reads and of several large int8 matmuls."""
    table = torch.ones(num_bytes // 4)
    read_s = min(_seconds(table.sum, 7))
    one, two = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
    layer = Int8Linear(two, torch.ones(size), None)
    matmul_s = min(_seconds(lambda: layer.accumulate(one), 5) + _seconds(lambda: torch._int_mm(one, two), 5))
    return Ceilings(num_bytes / read_s, 2 * size**3 / matmul_s)


class Cases:
    """The kernels of a decode step, with inputs as they come there."""

    def __init__(self, native: Native, vocab: int = VOCAB) -> None:
        self.native = native
        self.vocab = vocab
        self.passes = Passes(native)
        self.passes.num_threads = torch.get_num_threads()
        weights = [_weight(FFN) for _ in range(NUM_LAYERS)]
        self.layers = itertools.cycle([Int8Linear(*weight, None) for weight in weights])
        self.packed = itertools.cycle([self.passes.pack(*weight, None) for weight in weights])
        table, scale = _weight(vocab)
        self.tiles = [
            Int8Linear(table[first : first + TILE_ROWS], scale[first : first + TILE_ROWS], None)
            for first in range(0, vocab, TILE_ROWS)
        ]
        self.table = self.passes.pack(table, scale, None)
        self.gain, self.shift = torch.rand(WIDTH) + 0.5, torch.randn(WIDTH)

    def all(self, rows: int) -> Iterator[Case]:
        yield self.packed_linear(rows)
        yield self.vocabulary_pass(rows)
        yield self.linear(rows)
        yield self.vocabulary(rows)
        yield self.add_norm(rows)
        yield self.relu(rows)
        yield self.own_attention(rows)
        if rows % BEAMS == 0:
            yield self.source_attention(rows)

    def packed_linear(self, rows: int) -> Case:
        """What the passes multiply with, weights in their own order."""
        x = Quantized(*quantize_rows(torch.randn(rows, WIDTH)))

        def native() -> None:
            self.passes.linear(next(self.packed), x)

        def plain() -> None:
            next(self.layers).accumulate(x.rows)

        moved = FFN * WIDTH + rows * (WIDTH + 4 * FFN)
        return Case("linear int8, own (plain: torch's)", rows, native, plain, moved, 2 * rows * FFN * WIDTH)

    def vocabulary_pass(self, rows: int) -> Case:
        """Last norm, logits, log-softmax and top-k in one call, as in a decode step."""
        hidden = torch.randn(rows, WIDTH)

        def native() -> Tensor:
            return self.passes.project(self.gain, self.shift, self.table, hidden, NUM_BEST)[0]

        def plain() -> Tensor:
            x, scale = quantize_rows(functional.layer_norm(hidden, (WIDTH,), self.gain, self.shift))
            parts = [tile.accumulate(x) * scale[:, None] for tile in self.tiles]
            return torch.cat(parts, dim=1).log_softmax(dim=1).topk(NUM_BEST, dim=1).values

        moved = self.vocab * WIDTH
        return Case("vocabulary, own pass", rows, native, plain, moved, 2 * rows * self.vocab * WIDTH)

    def linear(self, rows: int) -> Case:
        x = torch.randn(rows, WIDTH)
        weights = itertools.cycle(torch.randn(NUM_LAYERS // 4, FFN, WIDTH).unbind(0))
        quantized, _ = quantize_rows(x)

        def native() -> None:
            next(self.layers).accumulate(quantized)

        def plain() -> None:
            functional.linear(x, next(weights))

        moved = FFN * WIDTH + rows * (WIDTH + 4 * FFN)
        return Case("linear int8, torch's (plain: float32)", rows, native, plain, moved, 2 * rows * FFN * WIDTH)

    def vocabulary(self, rows: int) -> Case:
        x, scale = quantize_rows(torch.randn(rows, WIDTH))

        def native() -> Tensor:
            best = TopK(rows, NUM_BEST)
            offset = 0
            for tile in self.tiles:
                self.native.topk_tile(tile.accumulate(x), scale, offset, best)
                offset += tile.out_features
            return best.log_probs()

        def plain() -> Tensor:
            logits = torch.cat([tile.accumulate(x) for tile in self.tiles], dim=1) * scale[:, None]
            return logits.log_softmax(dim=1).topk(NUM_BEST, dim=1).values

        return Case("vocabulary, by tiles", rows, native, plain, self.vocab * WIDTH, 2 * rows * self.vocab * WIDTH)

    def add_norm(self, rows: int) -> Case:
        hidden, acc = torch.randn(rows, WIDTH), _accumulator(rows, WIDTH)
        zero = Accumulator(torch.zeros(rows, WIDTH), acc.scale, torch.zeros(WIDTH))  # so that repeats see the same

        def plain() -> Tensor:
            added = hidden + (zero.values * zero.scale[:, None] + zero.bias)
            return _dequantized(*quantize_rows(functional.layer_norm(added, (WIDTH,), self.gain, self.shift)))

        def native() -> Tensor:
            return _value(self.native.add_norm_quantize(hidden, zero, self.gain, self.shift))

        return Case("add, norm, quantize", rows, native, plain, rows * WIDTH * 13, rows * WIDTH * 10)

    def relu(self, rows: int) -> Case:
        acc = _accumulator(rows, FFN)

        def native() -> Tensor:
            fresh = Accumulator(acc.values.clone(), acc.scale, acc.bias)  # the kernel overwrites what it is given
            return _value(self.native.relu_quantize(fresh))

        def plain() -> Tensor:
            return _dequantized(*quantize_rows((acc.values.clone() * acc.scale[:, None] + acc.bias).relu()))

        return Case("relu, quantize", rows, native, plain, rows * FFN * 9, rows * FFN * 5)

    def own_attention(self, rows: int) -> Case:
        keys, values = _pool(rows * HISTORY)
        slots = torch.arange(rows * HISTORY).view(rows, HISTORY)
        lengths = torch.full((rows,), HISTORY)
        acc = _accumulator(rows, 3 * WIDTH)

        def native() -> Tensor:
            return _value(self.native.self_attention(acc, keys, values, slots[:, -1].contiguous(), slots, lengths))

        def plain() -> Tensor:
            query, key, value = (acc.values * acc.scale[:, None] + acc.bias).chunk(3, dim=1)
            keys[slots[:, -1]] = key.reshape(rows, HEADS, HEAD).half()
            values[slots[:, -1]] = value.reshape(rows, HEADS, HEAD).half()
            mixed = self_attention(query.reshape(rows, HEADS, HEAD), keys, values, slots, lengths)
            return _dequantized(*quantize_rows(mixed.reshape(rows, WIDTH)))

        moved = rows * (HISTORY * 2 * WIDTH * 2 + 3 * WIDTH * 4)
        return Case("self-attention", rows, native, plain, moved, rows * HISTORY * WIDTH * 4)

    def source_attention(self, rows: int) -> Case:
        groups = rows // BEAMS
        keys, values = _pool(groups * SOURCE)
        slots = torch.arange(groups * SOURCE).view(groups, SOURCE)
        lengths = torch.full((groups,), SOURCE)
        group_rows, row_places = torch.arange(rows).view(groups, BEAMS), torch.arange(rows)
        acc = _accumulator(rows, WIDTH)

        def native() -> Tensor:
            kv = keys, values, slots, lengths
            return _value(self.native.cross_attention(acc, *kv, group_rows, row_places))

        def plain() -> Tensor:
            query = (acc.values * acc.scale[:, None] + acc.bias).view(rows, HEADS, HEAD)
            mixed = cross_attention(query, keys, values, slots, lengths, group_rows, row_places)
            return _dequantized(*quantize_rows(mixed.reshape(rows, WIDTH)))

        moved = groups * SOURCE * 2 * WIDTH * 2 + rows * WIDTH * 5
        return Case(f"cross-attention, {BEAMS} beams", rows, native, plain, moved, rows * SOURCE * WIDTH * 4)


def measure(case: Case, ceilings: Ceilings, repeats: int) -> dict[str, Any]:
    """Times of both forms, taking turns, and how close the kernel comes to its ceiling."""
    found, expected = case.native(), case.plain()
    error = 0.0
    if found is not None and expected is not None:
        error = float((found - expected).abs().max() / expected.abs().max())
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(repeats):
        ours += _seconds(case.native, 1)
        plain += _seconds(case.plain, 1)
    median = statistics.median(ours)
    least = {"memory": case.num_bytes / ceilings.bandwidth, "arithmetic": case.operations / ceilings.operations}
    bound = max(least, key=lambda name: least[name])
    return {
        "kernel": case.kernel,
        "rows": case.rows,
        "us": common.spread(second * 1e6 for second in ours),
        "speedup": common.ratio(plain, ours),
        "gb_per_s": case.num_bytes / median / 1e9,
        "gop_per_s": case.operations / median / 1e9,
        "bound": bound,
        "of_ceiling": least[bound] / median,
        "error": error,
    }


def _seconds(call: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def _weight(out_features: int) -> tuple[Tensor, Tensor]:
    """int8 [out, WIDTH] and its scale [out]."""
    return torch.randint(-127, 128, (out_features, WIDTH), dtype=torch.int8), torch.rand(out_features) * 1e-3


def _accumulator(rows: int, width: int) -> Accumulator:
    return Accumulator(torch.randn(rows, width), torch.rand(rows) + 0.5, torch.randn(width))


def _pool(slots: int) -> tuple[Tensor, Tensor]:
    keys, values = torch.randn(2, slots, HEADS, HEAD).half().unbind(0)
    return keys.contiguous(), values.contiguous()


def _value(quantized: Quantized) -> Tensor:
    return _dequantized(quantized.rows, quantized.scale)


def _dequantized(rows: Tensor, scale: Tensor) -> Tensor:
    return rows * scale[:, None]


def run(rows: Sequence[int], repeats: int, vocab: int = VOCAB) -> dict[str, Any]:
    """Raises RuntimeError where the native kernels were not built."""
    native = load_native()
    if native is None:
        raise RuntimeError("the native kernels were not built (no C++ compiler)")
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(f"{torch.get_num_threads()} threads, {native.level}: {ceilings.bandwidth / 1e9:.1f} GB/s read, ", end="")
    print(f"{ceilings.operations / 1e9:,.0f} G int8 operations/s")
    cases = Cases(native, vocab)
    records = []
    for number in rows:
        for case in cases.all(number):
            records.append(measure(case, ceilings, repeats))
            print(_line(records[-1]), flush=True)
    return {
        "threads": torch.get_num_threads(),
        "instructions": native.level,
        "bandwidth_gb_per_s": ceilings.bandwidth / 1e9,
        "int8_gop_per_s": ceilings.operations / 1e9,
        "kernels": records,
    }


def _line(record: dict[str, Any]) -> str:
    return (
        f"{record['kernel']:37} rows {record['rows']:4}: {record['us']} µs, {record['speedup'].median:.1f} × plain, "
        f"{record['gb_per_s']:.1f} GB/s, {record['gop_per_s']:,.0f} Gop/s, {record['of_ceiling']:.0%} of what "
        f"{record['bound']} allows, error {record['error']:.1e}"
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--vocab", type=int, default=VOCAB)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    options = parser.parse_args()
    print(common.headline(vars(options)))
    results = run(options.rows, options.repeats, options.vocab)
    path = common.save("micro_kernels", vars(options), results, options.results)
    speedups: dict[str, dict[str, common.Spread]] = {}
    for record in results["kernels"]:
        speedups.setdefault(f"{record['rows']} rows", {})[record["kernel"]] = record["speedup"]
    plot.bars(path.with_suffix(".svg"), "CPU kernels: times faster than their PyTorch form", "times", speedups)


if __name__ == "__main__":
    main()
