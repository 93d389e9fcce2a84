from __future__ import annotations

import json

import pytest

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.tokenizer import Tokenizer

#: The columns of held_out.json; the demonstration model knows the first four.
COLUMNS = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "por_Latn", "ita_Latn")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(read_checkpoint(DEMO_FOLDER))


@pytest.fixture(scope="session")
def held_out() -> list[dict[str, str]]:
    """Rows of the same sentence in several languages, by code."""
    rows = json.loads((DEMO_FOLDER / "held_out.json").read_text(encoding="utf-8"))
    return [dict(zip(COLUMNS, texts, strict=False)) for _, texts in rows]
