"""Reading the weights of a checkpoint folder: safetensors (mapped, sharded or not) or PyTorch's .bin.

Knows names and files, not what the tensors are used for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from nllbd.errors import CheckpointError

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Weights:
    """Tensors of a checkpoint by name, in the file's dtype, mapped from disk and read when touched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = _load(path)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> Tensor | None:
        return self._tensors.get(name)

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor `name`, which must have `shape`; else CheckpointError says what is there instead."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path}: the weights have no tensor {name!r}")
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{self.path}: {name} has shape {list(tensor.shape)}, config.json promises {list(shape)}"
            )
        return tensor


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
