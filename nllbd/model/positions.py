"""Fixed sinusoidal positions of M2M100 (fairseq's variant: all sines, then all cosines; offset 2; padding is zero)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

POSITION_OFFSET = 2  # padding id + 1: position p of a sequence uses table row p + 2


def sinusoid_table(num_rows: int, d_model: int, pad_id: int) -> Tensor:
    """[num_rows, d_model]; row r = (sin(r w_0..), cos(r w_0..)), w_i = 10000^(-i / (d/2 - 1)); row pad_id 0."""
    half = d_model // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.int64).float() * -(math.log(10000) / (half - 1)))
    angle = torch.arange(num_rows, dtype=torch.int64).float()[:, None] * frequency[None, :]
    table = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
    if d_model % 2:
        table = torch.cat([table, torch.zeros(num_rows, 1)], dim=1)
    table[pad_id] = 0
    return table
