"""Damaged model folders: every one is a CheckpointError that names file and field."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nllbd.checkpoint import DEMO_FOLDER, Checkpoint, read_checkpoint
from nllbd.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo without its weights, which nobody looks at here."""
    return Path(
        shutil.copytree(DEMO_FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "held*"))
    )


def write(folder: Path, name: str, **changes: Any) -> None:
    """Change fields of a JSON file; `...` removes one."""
    fields = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    fields = {key: value for key, value in {**fields, **changes}.items() if value is not ...}
    (folder / name).write_text(json.dumps(fields))


COUNTS = (
    "vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_position_embeddings",
)
NO_COUNT: tuple[Any, ...] = ("8", -1, 0, True, 2.0, float("nan"), 10**30, [4], {})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_config_counts(folder: Path, name: str, value: Any) -> None:
    write(folder, "config.json", **{name: value})
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is "):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", ...),
        ("vocab_size", None),
        ("d_model", ...),
        ("encoder_attention_heads", 3),
        ("decoder_attention_heads", 512),
        ("eos_token_id", 8206),
        ("pad_token_id", "1"),
        ("decoder_start_token_id", -2),
        ("scale_embedding", "no"),
        ("activation_function", "gelu"),
        ("activation_function", 7),
        ("model_type", ["m2m_100"]),
    ],
)
def test_config_fields(folder: Path, name: str, value: Any) -> None:
    write(folder, "config.json", **{name: value})
    with pytest.raises(CheckpointError, match=rf"config\.json: {name} is "):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_beams", ("x", -1, 0, True, 1.5, 10**9, float("nan"))),
        ("max_length", ("x", -1, 0, True, 1.5, 10**12, float("inf"))),
        ("length_penalty", ("x", True, 1e9, float("nan"), float("inf"), [1.0])),
        ("early_stopping", ("sometimes", 1, 0, 1.0, [])),
    ],
)
def test_generation_config(folder: Path, name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        write(folder, "generation_config.json", **{name: value})
        with pytest.raises(CheckpointError, match=rf"generation_config\.json: {name} is "):
            read_checkpoint(folder)


def test_sound_values_are_taken(folder: Path) -> None:
    write(folder, "generation_config.json", num_beams=5, length_penalty=1, early_stopping="never", max_length=200)
    write(folder, "tokenizer_config.json", legacy_behaviour=True)
    checkpoint: Checkpoint = read_checkpoint(folder)
    generation = checkpoint.generation
    assert (generation.num_beams, generation.length_penalty, generation.max_length) == (5, 1.0, 200)
    assert generation.early_stopping == "never"
    assert checkpoint.legacy_code_position


def test_tokenizer_config(folder: Path) -> None:
    write(folder, "tokenizer_config.json", legacy_behaviour="false")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: legacy_behaviour is "):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content", ["5", "{}", "[]", "null", '"eng_Latn"', "[5]", '["eng_Latn", null]', '["xxx_Latn"]', "["]
)
def test_languages(folder: Path, content: str) -> None:
    (folder / "languages.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"languages\.json: "):
        read_checkpoint(folder)


FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "languages.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"5", b"null", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b""])
def test_files_that_are_no_object(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        read_checkpoint(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(file=st.sampled_from(FILES[:2]), name=st.sampled_from([*COUNTS, "num_beams", "early_stopping"]), value=JSON)
def test_any_value_is_read_or_a_checkpoint_error(folder: Path, file: str, name: str, value: Any) -> None:
    original = (folder / file).read_text()
    write(folder, file, **{name: value})
    complaint = f"{file}: {name} "
    try:
        read_checkpoint(folder)
    except CheckpointError as error:
        complaint = error.message
    (folder / file).write_text(original)
    assert file in complaint
    assert name in complaint or name == "d_model"  # of which the heads must be a divisor


def _change(file: Path, position: int, content: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(content)


def test_the_fingerprint_sees_every_byte_of_the_small_files(folder: Path) -> None:
    before = read_checkpoint(folder).fingerprint
    assert before == read_checkpoint(folder).fingerprint
    vocabulary = folder / "sentencepiece.bpe.model"
    middle = vocabulary.stat().st_size // 2
    byte = vocabulary.read_bytes()[middle]
    _change(vocabulary, middle, bytes([byte ^ 1]))
    assert read_checkpoint(folder).fingerprint != before


@pytest.mark.parametrize("where", [0.0, 0.1234, 0.5, 0.777, 0.995])
def test_the_fingerprint_meets_a_matrix_that_was_trained_anew(folder: Path, where: float) -> None:
    """One of 1024 by 1024 in half precision, somewhere in 1 GiB of weights (a file of holes: it takes no room)."""
    weights = folder / "pytorch_model.bin"
    weights.touch()
    os.truncate(weights, 1 << 30)
    before = read_checkpoint(folder).fingerprint
    _change(weights, int(where * (1 << 30)), b"\1" * (2 << 20) + b"\2" * 4096)
    assert weights.stat().st_size == 1 << 30
    assert read_checkpoint(folder).fingerprint != before
