"""Positions are transformers' own, row by row."""

import pytest
import torch
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding

from nllbd.model.positions import sinusoid_table


@pytest.mark.parametrize("d_model", [256, 1024, 2048, 7])
def test_table_equals_transformers(d_model: int) -> None:
    expected = M2M100SinusoidalPositionalEmbedding.get_embedding(1026, d_model, padding_idx=1)
    assert torch.equal(sinusoid_table(1026, d_model, pad_id=1), expected)
