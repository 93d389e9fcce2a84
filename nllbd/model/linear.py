"""Linear layers by precision: dense (float32, bfloat16, float16), or dynamic int8 on the CPU."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nllbd.errors import CheckpointError
from nllbd.kernels.int8_linear import Int8Linear, quantize_rows
from nllbd.kernels.native import Quantized
from nllbd.kernels.native.passes import Passes
from nllbd.model.weights import LinearWeight


class Linear(Protocol):
    """y = x W^T + b for x [..., in_features]."""

    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor: ...


class DenseLinear:
    """Weight [out, in] in a floating dtype; activations are rounded to it for the matmul and come back as they were."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.out_features, self.in_features = weight.shape

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class PackedLinear:
    """int8 weights packed for the native passes, which take them from here. A call of its own multiplies by itself."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, passes: Passes) -> None:
        """weight int8 [out, in]; scale float32 [out]; bias [out] or None."""
        self.out_features, self.in_features = weight.shape
        self.packed = passes.pack(weight, scale, bias)
        self._passes = passes

    def __call__(self, x: Tensor) -> Tensor:
        return self._passes.linear(self.packed, Quantized(*quantize_rows(x)))[:, : self.out_features]


def make_linear(
    weight: LinearWeight, bias: Tensor | None, precision: str, device: torch.device, passes: Passes | None = None
) -> Linear:
    """weight [out, in], bias [out] or None; precision: float32, bfloat16, float16 or int8; passes: pack int8 for them.

    Raises CheckpointError when an int8 weight is asked for in another precision.
    """
    if precision == "int8":
        values, scale = weight.values, weight.scale
        if scale is None:
            values, scale = quantize_rows(values.float())
        return PackedLinear(values, scale, bias, passes) if passes else Int8Linear(values, scale, bias)
    if weight.scale is not None:
        raise CheckpointError(f"the checkpoint is pre-quantized to int8; it cannot be served as {precision}")
    dtype: torch.dtype = getattr(torch, precision)
    return DenseLinear(weight.values.to(device, dtype), None if bias is None else bias.to(device, dtype))
