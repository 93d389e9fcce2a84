from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.errors import CheckpointError
from nllbd.weight_files import (
    TensorHeader,
    check_archive,
    check_shapes,
    expected_shapes,
    known_checksums,
    read_headers,
    sha256,
    weight_files,
)

WEIGHTS = DEMO_FOLDER / "model.safetensors"


def write_safetensors(path: Path, table: dict[str, object], num_bytes: int) -> Path:
    raw = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(num_bytes))
    return path


def entry(begin: int, end: int, *shape: int, dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_the_bundled_model_has_the_shapes_it_promises() -> None:
    config = read_checkpoint(DEMO_FOLDER).config
    headers = read_headers(WEIGHTS)
    check_shapes(headers, config, DEMO_FOLDER)
    assert {name for name, _ in expected_shapes(config)} == headers.keys() - {"model.shared.weight"}


def test_a_missing_and_a_misshapen_tensor_are_named() -> None:
    config = read_checkpoint(DEMO_FOLDER).config
    headers = read_headers(WEIGHTS)
    with pytest.raises(CheckpointError, match=r"shape \[8206, 256\], config.json promises \[9000, 256\]"):
        check_shapes(headers, dataclasses.replace(config, vocab_size=9000), DEMO_FOLDER)
    with pytest.raises(CheckpointError, match=r"no tensor model\.decoder\.layers\.2\."):
        check_shapes(headers, dataclasses.replace(config, decoder_layers=3), DEMO_FOLDER)
    del headers["model.shared.weight"]
    with pytest.raises(CheckpointError, match="no embedding"):
        check_shapes(headers, config, DEMO_FOLDER)


def test_int8_weights_need_their_scales() -> None:
    config = read_checkpoint(DEMO_FOLDER).config
    name, width = "model.encoder.layers.0.fc1.weight", config.d_model
    plain = read_headers(WEIGHTS)

    def refused(says: str, **changed: TensorHeader) -> None:
        with pytest.raises(CheckpointError, match=says):
            check_shapes(plain | {name: TensorHeader("I8", (1024, width))} | changed, config, DEMO_FOLDER)

    scale = {f"{name}_scale": TensorHeader("F32", (1024,))}
    check_shapes(plain | {name: TensorHeader("I8", (1024, width))} | scale, config, DEMO_FOLDER)
    refused("fc1.weight is I8, but the weights have no tensor .*fc1.weight_scale")
    refused("fc1.weight_scale is F16", **{f"{name}_scale": TensorHeader("F16", (1024,))})
    refused(r"fc1.weight_scale has shape \[256\]", **{f"{name}_scale": TensorHeader("F32", (256,))})
    refused("fc1.weight is I64", **{name: TensorHeader("I64", (1024, width))})
    refused("fc1.bias is I8", **scale, **{"model.encoder.layers.0.fc1.bias": TensorHeader("I8", (1024,))})


@pytest.mark.parametrize("keep", [0, 7, 100, 20_000, WEIGHTS.stat().st_size - 1])
def test_a_file_cut_short(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="safetensors"):
        read_headers(path)


@pytest.mark.parametrize(
    ("table", "num_bytes"),
    [
        ({"a": entry(0, 4, 2), "b": entry(8, 12, 2)}, 12),  # a hole
        ({"a": entry(0, 4, 2), "b": entry(2, 6, 2)}, 6),  # an overlap
        ({"a": entry(0, 6, 2)}, 6),  # too long for its shape
        ({"a": entry(0, 4, 2)}, 5),  # something behind the last
        ({"a": entry(0, 4, 2, dtype="Q9")}, 4),
        ({"a": {"dtype": "F16", "shape": [2]}}, 4),
        ({"a": 3}, 4),
        ({"a": entry(0, 4, "x")}, 4),  # type: ignore[arg-type]
    ],
)
def test_a_header_that_contradicts_the_file(tmp_path: Path, table: dict[str, object], num_bytes: int) -> None:
    with pytest.raises(CheckpointError):
        read_headers(write_safetensors(tmp_path / "model.safetensors", table, num_bytes))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_headers_or_a_checkpoint_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("w") / "model.safetensors"
    path.write_bytes(struct.pack("<Q", max(len(content) - 2, 0)) + content)
    with pytest.raises(CheckpointError):
        read_headers(path)


def test_weight_files_prefers_safetensors_and_follows_an_index(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"1\.safetensors is missing"):
        weight_files(tmp_path)
    (tmp_path / "1.safetensors").touch()
    (tmp_path / "2.safetensors").touch()
    assert weight_files(tmp_path) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="not a weight index"):
        weight_files(tmp_path)


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 1000)
    check_archive(path)
    damaged = bytearray(path.read_bytes())
    damaged[500] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        check_archive(path)
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="not a PyTorch file"):
        check_archive(path)


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    seen: list[int] = []
    assert sha256(tmp_path / "a", seen.append) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert seen == [3]
    assert known_checksums(tmp_path) == {}
    (tmp_path / "SHA256SUMS").write_text(f"{'A' * 64}  a b\n{'b' * 64} *c\n")
    assert known_checksums(tmp_path) == {"a b": "a" * 64, "c": "b" * 64}
    (tmp_path / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(CheckpointError, match="line 1"):
        known_checksums(tmp_path)
