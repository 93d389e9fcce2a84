"""Attention over padded groups: the reference form that every device can run.

Shapes use H heads of D dimensions. Masks are boolean, True = attend.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def padded_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """query [B, Q, H, D], key and value [B, T, H, D], mask [B, T] or None → [B, Q, H, D], scaled by 1/sqrt(D)."""
    bias = None if mask is None else mask[:, None, None, :]
    out = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
    )
    return out.transpose(1, 2)


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """[B] lengths → [B, width] boolean, True at positions below the length."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]
