"""Random checkpoints in NLLB layout, which transformers reads too."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model.random_checkpoint import write_checkpoint

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """make(name, d_model=…, …) → folder with random weights at that shape."""

    def make(name: str, *, d_model: int, heads: int, ffn: int, layers: int = 2, vocab: int = 3000) -> Path:
        folder = tmp_path_factory.mktemp(name)
        return write_checkpoint(folder, d_model=d_model, heads=heads, ffn=ffn, layers=layers, vocab=vocab)

    return make
