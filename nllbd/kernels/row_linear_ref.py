"""A linear layer of a decode step with what lies before and after it: plain PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def row_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    norm: tuple[Tensor, Tensor] | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """x [R, K], weight [N, K], bias [N] → [R, N].

    x and residual may be of a wider dtype than the weight's: x is rounded after the norm, and the residual is not.
    norm: weight and bias [K] of a LayerNorm (epsilon 1e-5) that x goes through first. relu: of the output.
    residual: [R, N], to which the output is added in place, and which is returned then.
    """
    if norm is not None:
        x = functional.layer_norm(x, norm[0].shape, *norm)
    y = functional.linear(x.to(weight.dtype), weight, bias)
    if relu:
        y = torch.relu_(y)
    return y if residual is None else residual.add_(y)
