"""The CPU kernels of native.cpp, called through ctypes (which lets go of Python's lock meanwhile).

They fuse what lies between two int8 matmuls. Each has a plain-PyTorch counterpart that runs where no compiler built
the library; the two differ in speed and rounding only.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LEVELS = ("portable", "avx2", "avx512", "vnni", "amx")
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class Quantized:
    """int8 rows [R, n] and their scales [R]."""

    rows: Tensor
    scale: Tensor


@dataclass(frozen=True, slots=True)
class Accumulator:
    """What an int8 matmul gives: values [R, n] float32 still to be multiplied by `scale` [R], then `bias` [n] added."""

    values: Tensor
    scale: Tensor
    bias: Tensor


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


class Native:
    """Typed face of the library. All tensors are contiguous, on the CPU."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    @property
    def has_passes(self) -> bool:
        """Whether passes.py can be used at the level in use."""
        return bool(self.library.nllbd_has_passes())

    @property
    def level(self) -> str:
        """The instruction set in use."""
        return LEVELS[self.library.nllbd_level()]

    def set_level(self, level: str) -> None:
        """Use a lower instruction set than the best one (for tests)."""
        self.library.nllbd_set_level(LEVELS.index(level))

    def set_num_threads(self, num_threads: int) -> None:
        """For calls from this thread (the library has a thread pool of its own beside PyTorch's)."""
        self.library.nllbd_set_num_threads(num_threads)

    def add_norm_quantize(self, hidden: Tensor, added: Accumulator | None, weight: Tensor, bias: Tensor) -> Quantized:
        """hidden [R, n] += added, in place; its LayerNorm as int8."""
        rows, width = hidden.shape
        out = _empty(rows, width)
        more = (_pointer(added.values), _pointer(added.scale), _pointer(added.bias)) if added else (None, None, None)
        self.library.nllbd_add_norm_quantize(
            _pointer(hidden), *more, _pointer(weight), _pointer(bias), rows, width, *_out(out)
        )
        return out

    def relu_quantize(self, acc: Accumulator) -> Quantized:
        """relu(acc) as int8; overwrites `acc.values`."""
        rows, width = acc.values.shape
        out = _empty(rows, width)
        self.library.nllbd_relu_quantize(
            _pointer(acc.values), _pointer(acc.scale), _pointer(acc.bias), rows, width, *_out(out)
        )
        return out

    def self_attention(
        self, qkv: Accumulator, keys: Tensor, values: Tensor, write_slots: Tensor, slots: Tensor, lengths: Tensor
    ) -> Quantized:
        """qkv [R, 3*H*D]; keys, values [num_slots, H, D] float16, written at write_slots [R]; slots [R, T]."""
        rows, max_length = slots.shape
        heads, dim = keys.shape[1:]
        out = _empty(rows, heads * dim)
        self.library.nllbd_self_attention(
            *_acc(qkv), _pointer(keys), _pointer(values), _pointer(write_slots), _pointer(slots), _pointer(lengths),
            rows, max_length, heads, dim, *_out(out),
        )  # fmt: skip
        return out

    def cross_attention(
        self,
        query: Accumulator,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        lengths: Tensor,
        group_rows: Tensor,
        row_places: Tensor,
    ) -> Quantized:
        """query [R, H*D]; slots [G, S]; lengths [G]; group_rows [G, W]; row_places [R]."""
        groups, max_length = slots.shape
        heads, dim = keys.shape[1:]
        out = _empty(query.values.shape[0], heads * dim)
        self.library.nllbd_cross_attention(
            *_acc(query), _pointer(keys), _pointer(values), _pointer(slots), _pointer(lengths), _pointer(group_rows),
            _pointer(row_places), groups, group_rows.shape[1], max_length, heads, dim, *_out(out),
        )  # fmt: skip
        return out

    def store_cross(self, kv: Accumulator, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """kv [N, 2*H*D] into keys, values [num_slots, H, D] float16 at slots [N]."""
        rows, width = kv.values.shape
        self.library.nllbd_store_cross(*_acc(kv), _pointer(slots), rows, width // 2, _pointer(keys), _pointer(values))

    def encoder_attention(self, qkv: Accumulator, starts: Tensor, heads: int) -> Quantized:
        """qkv [N, 3*H*D] of packed sources; starts [num_sources + 1]."""
        rows, width = qkv.values.shape[0], qkv.values.shape[1] // 3
        out = _empty(rows, width)
        mixed = torch.empty(rows, width)
        self.library.nllbd_encoder_attention(
            *_acc(qkv), _pointer(starts), len(starts) - 1, heads, width // heads, _pointer(mixed), *_out(out)
        )
        return out

    def topk_tile(self, logits: Tensor, scale: Tensor, offset: int, state: TopK) -> None:
        """Fold one tile of logits [P, n] (to be multiplied by scale [P]) into `state`."""
        rows, width = logits.shape
        self.library.nllbd_topk_tile(
            _pointer(logits), _pointer(scale), rows, width, ctypes.c_int64(offset), state.ids.shape[1],
            _pointer(state.top), _pointer(state.total), _pointer(state.values), _pointer(state.ids),
        )  # fmt: skip


class TopK:
    """Running maximum and sum of exponentials [P], and the k best values and ids [P, k], of the logits seen so far."""

    def __init__(self, rows: int, k: int) -> None:
        self.top = torch.full((rows,), LOWEST)
        self.total = torch.zeros(rows)
        self.values = torch.full((rows, k), LOWEST)
        self.ids = torch.zeros((rows, k), dtype=torch.int64)

    def log_probs(self) -> Tensor:
        """[P, k] float32."""
        return self.values - (self.top + self.total.log())[:, None]


def _empty(rows: int, width: int) -> Quantized:
    return Quantized(torch.empty(rows, width, dtype=torch.int8), torch.empty(rows))


def _out(out: Quantized) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    return _pointer(out.rows), _pointer(out.scale)


def _acc(acc: Accumulator) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]:
    return _pointer(acc.values), _pointer(acc.scale), _pointer(acc.bias)


def find_library() -> Path | None:
    """The library as the package's installation built it, or None where there was no compiler."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (candidate := folder / f"_native{suffix}").is_file():
            return candidate
    return None


def load_native() -> Native | None:
    """The kernels, or None where they were not built."""
    library = find_library()
    return None if library is None else Native(library)
