"""What encoder and decoder layers share: norms, feed-forward blocks; the loader that makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nllbd.kernels.native.passes import Passes
from nllbd.model.linear import Linear, make_linear
from nllbd.model.weights import Weights, concatenate, release

ACTIVATION_DTYPE = torch.float32
"""Between layers; only matmuls and attention run in low precision. A residual stream in bfloat16 turns the rounding
noise of a different batch into different translations (8 % of them on the demonstration model)."""


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm with weight and bias [d_model], epsilon 1e-5 (torch's default, which M2M100 uses)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Pre-norm, expand, ReLU, contract."""

    norm: Norm
    expand: Linear
    contract: Linear

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, d_model] → [rows, d_model], residual not added."""
        return self.contract(torch.relu_(self.expand(self.norm(x))))


@dataclass(frozen=True, slots=True)
class LayerLoader:
    """Makes layers from a checkpoint's tensors in one precision on one device, checking every shape on the way."""

    weights: Weights
    d_model: int
    precision: str
    device: torch.device
    passes: Passes | None = None

    def norm(self, name: str) -> Norm:
        weight, bias = (self.weights.take(f"{name}.{part}", self.d_model) for part in ("weight", "bias"))
        return Norm(weight.to(self.device, ACTIVATION_DTYPE), bias.to(self.device, ACTIVATION_DTYPE))

    def linear(self, *names: str, out_features: int, in_features: int) -> Linear:
        """One layer that computes the named linears of the same input at once, their outputs side by side."""
        parts = [self.weights.take_linear(f"{name}.weight", out_features, in_features) for name in names]
        bias = torch.cat([self.weights.take(f"{name}.bias", out_features) for name in names])
        linear = make_linear(concatenate(parts), bias, self.precision, self.device, self.passes)
        for part in parts:
            release(part.values)
        return linear

    def square(self, prefix: str, *parts: str) -> Linear:
        """`linear` for the d_model × d_model projections of attention."""
        names = [f"{prefix}.{part}" for part in parts]
        return self.linear(*names, out_features=self.d_model, in_features=self.d_model)

    def feed_forward(self, prefix: str, ffn: int) -> FeedForward:
        return FeedForward(
            self.norm(f"{prefix}.final_layer_norm"),
            self.linear(f"{prefix}.fc1", out_features=ffn, in_features=self.d_model),
            self.linear(f"{prefix}.fc2", out_features=self.d_model, in_features=ffn),
        )
