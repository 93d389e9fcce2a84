"""Weight files looked at without torch: which tensors a checkpoint must have, which it has, checksums.

Reads headers of safetensors files and whole files for checksums; never a tensor's values.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nllbd.checkpoint import ModelConfig
from nllbd.errors import CheckpointError

CHECKSUMS_FILE = "SHA256SUMS"
_MAX_HEADER_BYTES = 100 << 20
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = ("F64", "F32", "F16", "BF16")
_EMBEDDINGS = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def weight_files(folder: Path) -> list[Path]:
    """The weight files that the engine would read, shards included: safetensors if there are any, else .bin.

    Raises CheckpointError when there are none, or when the index names one that is missing.
    """
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    raise CheckpointError(f"{folder}: no weights; expected model.safetensors or pytorch_model.bin")


def read_headers(file: Path) -> dict[str, TensorHeader]:
    """Names, types and shapes in one safetensors file; also checks that the file is as long as they say.

    Format: https://github.com/huggingface/safetensors#format. Raises CheckpointError.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
        if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{file}: not a safetensors file, or cut short in its header")
        raw = stream.read(length)
    try:
        table = {name: item for name, item in json.loads(raw).items() if name != "__metadata__"}
        headers = {name: TensorHeader(item["dtype"], tuple(item["shape"])) for name, item in table.items()}
        spans = sorted((*item["data_offsets"], name) for name, item in table.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: damaged header: {error!r}") from None
    _check_spans(file, headers, spans, size - 8 - length)
    return headers


def check_shapes(headers: dict[str, TensorHeader], config: ModelConfig, folder: Path) -> None:
    """Raise CheckpointError for the first tensor that is missing, or of another shape than config.json promises or of
    a type that is no weight's."""
    for name, shape in expected_shapes(config):
        header = headers.get(name)
        if header is None:
            raise CheckpointError(f"{folder}: the weights have no tensor {name}")
        _check_shape(name, header, shape, folder)
    embeddings = [name for name in _EMBEDDINGS if name in headers]
    if not embeddings:
        raise CheckpointError(f"{folder}: the weights have no embedding: none of {', '.join(_EMBEDDINGS)}")
    for name in embeddings:
        _check_shape(name, headers[name], (config.vocab_size, config.d_model), folder)
    _check_types(headers, folder)


def _check_types(headers: dict[str, TensorHeader], folder: Path) -> None:
    """Floating point, or int8 rows with a scale each, as `nllbd model quantize` writes them."""
    for name, header in headers.items():
        if header.dtype in _FLOATS:
            continue
        if header.dtype != "I8" or len(header.shape) != 2:
            raise CheckpointError(f"{folder}: {name} is {header.dtype} {list(header.shape)}; expected floating point")
        scale = headers.get(f"{name}_scale")
        if scale is None:
            raise CheckpointError(f"{folder}: {name} is I8, but the weights have no tensor {name}_scale")
        if scale.dtype != "F32":
            raise CheckpointError(f"{folder}: {name}_scale is {scale.dtype}; expected F32")
        _check_shape(f"{name}_scale", scale, header.shape[:1], folder)


def expected_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of an M2M100 network but the (tied) embeddings."""
    d_model = config.d_model
    stacks = (
        ("encoder", config.encoder_layers, config.encoder_ffn, ("self_attn",)),
        ("decoder", config.decoder_layers, config.decoder_ffn, ("self_attn", "encoder_attn")),
    )
    for stack, num_layers, ffn, attentions in stacks:
        yield from _norm(f"model.{stack}.layer_norm", d_model)
        for layer in range(num_layers):
            prefix = f"model.{stack}.layers.{layer}"
            for attention in attentions:
                yield from _norm(f"{prefix}.{attention}_layer_norm", d_model)
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield from _linear(f"{prefix}.{attention}.{projection}", d_model, d_model)
            yield from _norm(f"{prefix}.final_layer_norm", d_model)
            yield from _linear(f"{prefix}.fc1", ffn, d_model)
            yield from _linear(f"{prefix}.fc2", d_model, ffn)


def check_archive(file: Path) -> None:
    """Raise CheckpointError unless a .bin file is a whole zip archive (every member's CRC is checked)."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{file}: not a PyTorch file of version 1.6 or later: {error}") from None
    if damaged is not None:
        raise CheckpointError(f"{file}: {damaged} is damaged (wrong CRC)")


def sha256(file: Path, on_progress: Callable[[int], None] = lambda _: None) -> str:
    """Checksum of a file in hexadecimal; `on_progress` gets the number of bytes after each chunk."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            on_progress(len(chunk))
    return digest.hexdigest()


def known_checksums(folder: Path) -> dict[str, str]:
    """File name → checksum from the folder's SHA256SUMS (as `sha256sum` writes it); empty when there is none."""
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        return {}
    known = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        checksum, _, name = line.strip().partition(" ")
        if len(checksum) != 64 or not name.strip(" *"):
            raise CheckpointError(f"{path}: line {number} is not `<sha256>  <file>`")
        known[name.strip(" *")] = checksum.lower()
    return known


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        shards = [index.parent / Path(name).name for name in sorted(names)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not a weight index: {error!r}") from None
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing, {index.name} names it")
    return shards


def _check_spans(
    file: Path, headers: dict[str, TensorHeader], spans: list[tuple[int, int, str]], num_bytes: int
) -> None:
    """The tensors must lie in the file one behind the other, each as long as its shape and type say, to the end."""
    at = 0
    for begin, end, name in spans:
        header = headers[name]
        if begin != at or end - begin != header.num_elements * _ITEM_BYTES.get(header.dtype, 0):
            raise CheckpointError(f"{file}: {name} ({header.dtype} {list(header.shape)}) has a wrong place or length")
        at = end
    if at != num_bytes:
        raise CheckpointError(f"{file}: has {num_bytes} bytes of tensors where its header promises {at}: cut short?")


def _check_shape(name: str, header: TensorHeader, shape: tuple[int, ...], folder: Path) -> None:
    if header.shape != shape:
        raise CheckpointError(f"{folder}: {name} has shape {list(header.shape)}, config.json promises {list(shape)}")


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)
