"""Whole int8 passes of the network in one native call each: passes.inc through ctypes.

Weights are packed once into the order in which the kernels read them. All tensors are contiguous, on the CPU. Knows the
structures of native.cpp; knows no layer objects.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.kernels.native import Native, Quantized

BLOCK_COLUMNS, TILE_INNER, TILE_ROWS = 32, 64, 16
MAX_WIDTH = 8192
PHASES = (
    "norm", "qkv", "self-attention", "self out", "cross query", "cross-attention", "cross out", "expand", "quantize",
    "contract", "vocabulary", "best", "source attention", "cross KV",
)  # fmt: skip


class LinearTable(ctypes.Structure):
    _fields_ = (
        ("weight", c_void_p), ("sums", c_void_p), ("scale", c_void_p), ("bias", c_void_p),
        ("in_features", c_int32), ("out_features", c_int32),
    )  # fmt: skip


class EncoderTable(ctypes.Structure):
    _fields_ = (
        ("norm_weight", c_void_p), ("norm_bias", c_void_p), ("ff_norm_weight", c_void_p), ("ff_norm_bias", c_void_p),
        ("qkv", LinearTable), ("out", LinearTable), ("expand", LinearTable), ("contract", LinearTable),
    )  # fmt: skip


class DecoderTable(ctypes.Structure):
    _fields_ = (
        ("self_norm_weight", c_void_p), ("self_norm_bias", c_void_p),
        ("cross_norm_weight", c_void_p), ("cross_norm_bias", c_void_p),
        ("ff_norm_weight", c_void_p), ("ff_norm_bias", c_void_p),
        ("qkv", LinearTable), ("self_out", LinearTable), ("cross_query", LinearTable), ("cross_out", LinearTable),
        ("expand", LinearTable), ("contract", LinearTable),
        ("keys", c_void_p), ("values", c_void_p),
    )  # fmt: skip


class CrossTable(ctypes.Structure):
    _fields_ = (("kv", LinearTable), ("keys", c_void_p), ("values", c_void_p))


class RowsTable(ctypes.Structure):
    _fields_ = (
        ("write_slots", c_void_p), ("self_slots", c_void_p), ("self_lengths", c_void_p), ("cross_slots", c_void_p),
        ("cross_lengths", c_void_p), ("group_rows", c_void_p), ("row_places", c_void_p),
        ("rows", c_int32), ("self_width", c_int32), ("groups", c_int32), ("cross_width", c_int32),
        ("group_width", c_int32), ("heads", c_int32), ("dim", c_int32),
    )  # fmt: skip


def fits(width: int, ffn: int) -> bool:
    """Whether the passes can run layers of this shape."""
    return width % TILE_INNER == 0 and ffn % TILE_INNER == 0 and width <= MAX_WIDTH


def pointer(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """An int8 weight [out, in] as the kernels read it. sums, scale, bias: [out rounded up to a block]."""

    weight: Tensor
    sums: Tensor
    scale: Tensor
    bias: Tensor
    in_features: int
    out_features: int

    def table(self) -> LinearTable:
        """For the library; valid while this object lives."""
        return LinearTable(
            pointer(self.weight), pointer(self.sums), pointer(self.scale), pointer(self.bias),
            self.in_features, self.out_features,
        )  # fmt: skip


class Passes:
    """The calls. One thread at a time: they share a workspace that grows to the largest pass seen."""

    def __init__(self, native: Native) -> None:
        self._library = native.library
        for name in ("decode", "encode", "project"):
            getattr(self._library, f"nllbd_{name}").restype = c_int64
        self._workspace = torch.empty(0, dtype=torch.int8)
        self.num_threads = 1
        self.times: Tensor | None = None

    def keep_times(self) -> Tensor:
        """From now on, add up the seconds of each phase of PHASES in what is returned [len(PHASES)], float64."""
        self.times = torch.zeros(len(PHASES), dtype=torch.float64)
        return self.times

    def pack(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> PackedWeight:
        """weight int8 [out, in], in a multiple of 64; scale float32 [out]; bias [out] or None."""
        out_features, in_features = weight.shape
        assert in_features % TILE_INNER == 0
        padded = -(-out_features // BLOCK_COLUMNS) * BLOCK_COLUMNS
        packed = torch.empty(padded * in_features, dtype=torch.int8)
        sums = torch.empty(padded, dtype=torch.int32)
        weight = weight.contiguous()
        self._library.nllbd_pack(
            c_void_p(pointer(weight)), out_features, in_features, c_void_p(pointer(packed)), c_void_p(pointer(sums))
        )
        scales, biases = torch.zeros(padded), torch.zeros(padded)
        scales[:out_features] = scale
        if bias is not None:
            biases[:out_features] = bias
        return PackedWeight(packed, sums, scales, biases, in_features, out_features)

    def linear(self, linear: PackedWeight, x: Quantized) -> Tensor:
        """x [R, in] → [R, out rounded up to a block] float32, scales applied and bias added."""
        rows = x.rows.shape[0]
        padded = _empty_rows(rows, linear.in_features)
        padded.rows[:rows] = x.rows
        table = linear.table()
        table.out_features = linear.scale.shape[0]
        out = torch.empty(rows, linear.scale.shape[0])
        self._library.nllbd_linear(
            ctypes.byref(table), c_void_p(pointer(padded.rows)), c_void_p(pointer(x.scale)), rows,
            c_void_p(pointer(out)), self.num_threads,
        )  # fmt: skip
        return out

    def encode(
        self,
        layers: ctypes.Array[EncoderTable],
        norm_weight: Tensor,
        norm_bias: Tensor,
        starts: Tensor,
        heads: int,
        hidden: Tensor,
    ) -> Quantized:
        """hidden [N, d_model], overwritten; starts [num_sources + 1] → normed output; its memory has a tile's rows."""
        rows, width = hidden.shape
        out = _empty_rows(rows, width)
        longest = int(starts.diff().max())
        self._run(
            self._library.nllbd_encode, layers, len(layers), c_void_p(pointer(norm_weight)),
            c_void_p(pointer(norm_bias)), c_void_p(pointer(starts)), len(starts) - 1, longest, heads, width // heads,
            c_void_p(pointer(hidden)), c_void_p(pointer(out.rows)), c_void_p(pointer(out.scale)),
        )  # fmt: skip
        return Quantized(out.rows[:rows], out.scale)

    def write_cross(self, layers: ctypes.Array[CrossTable], encoded: Quantized, slots: Tensor) -> None:
        """encoded as `encode` gives it; slots [N]."""
        assert encoded.rows.untyped_storage().nbytes() >= _padded(len(slots)) * encoded.rows.shape[1]
        self._library.nllbd_write_cross(
            layers, len(layers), c_void_p(pointer(encoded.rows)), c_void_p(pointer(encoded.scale)), len(slots),
            c_void_p(pointer(slots)), self.num_threads, self._times(),
        )  # fmt: skip

    def decode(self, layers: ctypes.Array[DecoderTable], rows: RowsTable, hidden: Tensor) -> None:
        """hidden [R, d_model], in place."""
        self._run(
            self._library.nllbd_decode, layers, len(layers), ctypes.byref(rows), c_void_p(pointer(hidden))
        )  # fmt: skip

    def project(
        self, norm_weight: Tensor, norm_bias: Tensor, projection: PackedWeight, hidden: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """hidden [P, d_model] before the norm → (log-probabilities [P, k], ids [P, k]), best first."""
        rows = hidden.shape[0]
        values, ids = torch.empty(rows, k), torch.empty(rows, k, dtype=torch.int64)
        table = projection.table()
        self._run(
            self._library.nllbd_project, c_void_p(pointer(norm_weight)), c_void_p(pointer(norm_bias)),
            ctypes.byref(table), c_void_p(pointer(hidden)), rows, k, c_void_p(pointer(values)), c_void_p(pointer(ids)),
        )  # fmt: skip
        return values, ids

    def _times(self) -> c_void_p | None:
        return None if self.times is None else c_void_p(pointer(self.times))

    def _run(self, function: ctypes._NamedFuncPointer, *arguments: object) -> None:
        """Call a pass, with as much memory as it says it wants."""
        wanted = function(*arguments, self.num_threads, self._times(), None)
        assert wanted >= 0, "the processor has no such passes"
        if wanted > self._workspace.numel():
            self._workspace = torch.empty(0, dtype=torch.int8)  # the old one goes before the new one comes
            self._workspace = torch.empty(wanted, dtype=torch.int8)
        function(*arguments, self.num_threads, self._times(), c_void_p(self._workspace.data_ptr()))


def _empty_rows(rows: int, width: int) -> Quantized:
    return Quantized(torch.empty(_padded(rows), width, dtype=torch.int8), torch.empty(rows))


def _padded(rows: int) -> int:
    return -(-rows // TILE_ROWS) * TILE_ROWS
