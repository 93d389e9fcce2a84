"""Which kernels a device gets: Triton's on CUDA, the plain references elsewhere. The one place that knows both.

Triton's modules are imported when asked for, since a CPU-only PyTorch brings no Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from nllbd.kernels import project_topk_ref
from nllbd.kernels.add_norm_ref import add_norm
from nllbd.kernels.decode_attention_ref import decode_attention
from nllbd.kernels.embed_rows_ref import embed_rows
from nllbd.kernels.grouped_attention_ref import grouped_attention
from nllbd.kernels.packed_attention_ref import packed_attention
from nllbd.kernels.row_linear_ref import row_linear
from nllbd.kernels.write_kv_ref import write_kv


@dataclass(frozen=True, slots=True)
class Kernels:
    """The operations of a pass; each is documented at its reference. beam_step None: the engine's own search."""

    name: str
    embed_rows: Callable[..., tuple[Tensor, Tensor]]
    add_norm: Callable[..., Tensor]
    write_kv: Callable[..., None]
    decode_attention: Callable[..., Tensor]
    grouped_attention: Callable[..., Tensor]
    packed_attention: Callable[..., Tensor]
    row_linear: Callable[..., Tensor]
    project_topk: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    beam_step: Callable[..., None] | None = None


class MissingTriton(RuntimeError):
    """A CUDA device without Triton: this installation of PyTorch lacks it."""


def reference_kernels() -> Kernels:
    """Plain PyTorch, for any device. They may wait for the device, so no CUDA graph can capture them."""
    return Kernels(
        name="reference",
        embed_rows=embed_rows,
        add_norm=add_norm,
        write_kv=write_kv,
        decode_attention=decode_attention,
        grouped_attention=grouped_attention,
        packed_attention=packed_attention,
        row_linear=row_linear,
        project_topk=_project_topk,
    )


def triton_kernels() -> Kernels:
    """Raises MissingTriton where Triton is not installed."""
    if find_spec("triton") is None:
        raise MissingTriton("Triton is not installed; PyTorch's CUDA builds for Linux bring it: pip install triton")
    from nllbd.kernels import (
        add_norm_triton,
        beam_step_triton,
        decode_attention_triton,
        embed_rows_triton,
        grouped_attention_triton,
        packed_attention_triton,
        project_topk_triton,
        row_linear_triton,
        write_kv_triton,
    )

    return Kernels(
        name="triton",
        embed_rows=embed_rows_triton.embed_rows,
        add_norm=add_norm_triton.add_norm,
        write_kv=write_kv_triton.write_kv,
        decode_attention=decode_attention_triton.decode_attention,
        grouped_attention=grouped_attention_triton.grouped_attention,
        packed_attention=packed_attention_triton.packed_attention,
        row_linear=row_linear_triton.row_linear,
        project_topk=project_topk_triton.project_topk,
        beam_step=beam_step_triton.beam_step,
    )


def pick_kernels(device: torch.device) -> Kernels:
    """Raises MissingTriton for a CUDA device where Triton is not installed."""
    return triton_kernels() if device.type == "cuda" else reference_kernels()


def _project_topk(weight: Tensor, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    tiles = [partial(functional.linear, weight=tile) for tile in torch.split(weight, project_topk_ref.TILE_ROWS)]
    if weight.dtype.itemsize < 4:
        return project_topk_ref.rescored_topk(tiles, weight, hidden, k)
    return project_topk_ref.project_topk(tiles, hidden, k)
