"""Random weights in NLLB's checkpoint layout, at any shape."""

import json
import shutil
from pathlib import Path

import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration

from nllbd.checkpoint import DEMO_FOLDER, SENTENCEPIECE_FILE


def write_checkpoint(folder: Path, *, d_model: int, heads: int, ffn: int, layers: int = 2, vocab: int = 3000) -> Path:
    """Fill `folder` and return it."""
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=vocab,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        decoder_start_token_id=2,
        scale_embedding=True,
        max_position_embeddings=1024,
    )
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(DEMO_FOLDER / SENTENCEPIECE_FILE, folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "m2m_100"
    return folder
