"""Residual addition and LayerNorm in one: plain PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def add_norm(hidden: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """hidden [R, d_model] += added, in place; returns its LayerNorm (epsilon 1e-5) in `dtype`.

    weight, bias: [d_model], in the dtype of hidden.
    """
    if added is not None:
        hidden += added
    return functional.layer_norm(hidden, weight.shape, weight, bias).to(dtype)
