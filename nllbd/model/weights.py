"""Reading the weights of a checkpoint folder: safetensors (mapped, sharded or not) or PyTorch's .bin.

Knows names and files, not what the tensors are used for. A pre-quantized checkpoint (`nllbd model quantize`) holds a
linear's weight as int8 and beside it `<name>_scale`, float32, one value an output row.
"""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from nllbd.errors import CheckpointError
from nllbd.model.storage import is_shared

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
SCALE_SUFFIX = "_scale"
MADV_PAGEOUT = 21  # Linux 5.4; unlike MADV_DONTNEED it never loses what is only in memory
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """A weight matrix [out, in]: in a floating dtype, or int8 with `scale` [out]."""

    values: Tensor
    scale: Tensor | None = None

    def rows(self, start: int, stop: int) -> LinearWeight:
        """Some of the output rows."""
        return LinearWeight(self.values[start:stop], None if self.scale is None else self.scale[start:stop])


class Weights:
    """Tensors of a checkpoint by name, in the file's dtype, mapped from disk and read when touched; from shared
    storage, which may go away under a mapping, each is copied into memory as it is taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = _load(path)
        self._is_shared = is_shared(path)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def get(self, name: str) -> Tensor | None:
        tensor = self._tensors.get(name)
        return tensor.clone() if tensor is not None and self._is_shared else tensor

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor `name`, which must have `shape`; else CheckpointError says what is there instead."""
        tensor = self.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path}: the weights have no tensor {name!r}")
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{self.path}: {name} has shape {list(tensor.shape)}, config.json promises {list(shape)}"
            )
        return tensor

    def take_linear(self, name: str, out_features: int, in_features: int) -> LinearWeight:
        """A weight matrix and, if it is stored as int8, its scales."""
        values = self.take(name, out_features, in_features)
        scale = self.take(f"{name}{SCALE_SUFFIX}", out_features) if values.dtype is torch.int8 else None
        return LinearWeight(values, scale)


def concatenate(parts: Sequence[LinearWeight]) -> LinearWeight:
    """Weights of several linears of the same input, one below the other."""
    scales = [part.scale for part in parts if part.scale is not None]
    return LinearWeight(torch.cat([part.values for part in parts]), torch.cat(scales) if scales else None)


def release(tensor: Tensor) -> None:
    """Ask the kernel to take back the memory behind a tensor that is mapped from a file; a touch brings it back.

    What has been packed into a matmul's own layout would otherwise count twice in the process's resident set.
    """
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:  # a refusal (old kernel, memory that is no mapping) costs memory, nothing else
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_PAGEOUT)


def _load(path: Path) -> dict[str, Tensor]:
    for single, index in (SAFETENSORS, PICKLED):
        files = [path / single] if (path / single).is_file() else _shards(path / index)
        if files:
            return {name: tensor for file in files for name, tensor in _read(file)}
    raise CheckpointError(f"{path}: no weights; expected one of {', '.join((*SAFETENSORS, *PICKLED))}")


def _shards(index: Path) -> list[Path]:
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: not a weight index: {error!r}") from None
    return [index.parent / Path(name).name for name in sorted(names)]


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a dict
                    yield name, handle.get_tensor(name)
        else:
            yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()
    except CheckpointError:
        raise
    except Exception as error:  # safetensors and pickle raise a zoo of types on a damaged file
        raise CheckpointError(f"{file}: cannot be read ({type(error).__name__}: {error})") from None
