"""Writes a checkpoint in the form that int8 serving loads fast: linears as int8 with scales, everything else in half.

The result is a folder like any checkpoint's. The embedding is kept in float16 for look-ups (mapped, so only the rows
that are used take memory), and once more as `lm_head.weight` in int8 for the projection.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nllbd.checkpoint import read_checkpoint
from nllbd.errors import CheckpointError
from nllbd.kernels.int8_linear import quantize_rows
from nllbd.model.nllb import EMBEDDING_NAMES
from nllbd.model.weights import SCALE_SUFFIX, Weights, release

LINEARS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")


def quantize_checkpoint(
    source: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Quantize the checkpoint folder `source` into the new folder `target`, complete or not at all.

    `progress(done, total)` counts tensors. Raises CheckpointError when `source` is no checkpoint or quantized already,
    or when `target` exists.
    """
    read_checkpoint(source)
    if target.exists():
        raise CheckpointError(f"{target} exists already; give a new folder")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file(_quantized(Weights(source), source, progress), part / "model.safetensors", {"format": "pt"})
        for file in source.iterdir():
            if file.is_file() and file.suffix in {".json", ".model", ".md"} and not file.name.endswith(".index.json"):
                shutil.copyfile(file, part / file.name)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _quantized(weights: Weights, source: Path, progress: Callable[[int, int], None] | None) -> dict[str, Tensor]:
    names = [name for name in weights.names() if not _is_embedding(name)]
    embedding = next((name for name in EMBEDDING_NAMES if name in weights), None)
    if embedding is None:
        raise CheckpointError(f"{source}: no embedding table; expected one of {', '.join(EMBEDDING_NAMES)}")
    result: dict[str, Tensor] = {}
    for done, name in enumerate([embedding, *names]):
        tensor = weights.get(name)
        assert tensor is not None
        if tensor.dtype is torch.int8:
            raise CheckpointError(f"{source} is quantized already")
        if name == embedding:
            result["model.shared.weight"] = tensor.half()
            result["lm_head.weight"], result[f"lm_head.weight{SCALE_SUFFIX}"] = quantize_rows(tensor.float())
        elif name.endswith(LINEARS):
            result[name], result[f"{name}{SCALE_SUFFIX}"] = quantize_rows(tensor.float())
        else:
            result[name] = tensor.float()
        release(tensor)
        if progress:
            progress(done + 1, len(names) + 1)
    return result


def _is_embedding(name: str) -> bool:
    return name.endswith(("embed_tokens.weight", "shared.weight", "lm_head.weight"))
