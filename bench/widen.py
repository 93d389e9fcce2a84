"""Benchmark checkpoints of true NLLB-200 shape without a download: a small trained M2M100 made wide.

    python -m bench.widen 600M|1.3B|3.3B [--cache-dir ~/.cache/nllbd-bench] [--dtype float32] [--source DIR]

The wide checkpoint computes the function of the small one (same logits for its ids, up to rounding) at the cost of the
real model: text, lengths and stopping are real. It works because a hidden state made of k copies of the small one
passes through every operation unchanged:

  embeddings    rows tiled, divided by √k (M2M100 multiplies by √d_model)
  linear        rows tiled; columns tiled, divided by the number of input copies, plus noise that cancels between copies
  layer norm    tiled (mean and variance of a tiled vector are the vector's); the decoder's last one divided by √k,
                for the tied projection yields √k times the logit
  heads         wide head h computes small head h mod H; where it is r times larger it holds r copies, q divided by √r
  more layers   output projections that add zero
  positions     the small table tiled and not divided, shipped as model.*.embed_positions.weights; transformers and
                CTranslate2 compute their own instead unless told (bench/peers.py tells them)
  padding ids   (beyond the small vocabulary) get one constant logit, PADDING_LOGIT, through the last layer norm's bias

The noise keeps equal tensors and equal rows out of the file, which CTranslate2 would store once. What the checkpoint
cannot say: tokens per sentence are the small tokenizer's, and int8 or bf16 quality is not that of Meta's weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint

VOCAB_SIZE = 256_206
PADDING_LOGIT = -25.0
DEFAULT_CACHE = Path("~/.cache/nllbd-bench")
EMBEDDINGS = ("model.shared.weight", "lm_head.weight", "model.encoder.embed_tokens.weight")
CHUNK_ROWS = 16_384
_SAFETENSORS_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Shape:
    """What the wide model looks like; encoder and decoder alike, as in all NLLB-200."""

    d_model: int
    heads: int
    layers: int
    ffn: int
    vocab_size: int = VOCAB_SIZE


SHAPES = {
    "600M": Shape(1024, 16, 12, 4096),
    "1.3B": Shape(1024, 16, 24, 8192),
    "3.3B": Shape(2048, 16, 24, 8192),
}


@dataclass(frozen=True)
class Entry:
    """One tensor of the wide file; `rows` yields it in pieces of whole rows, so that 3.3B needs little memory."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    rows: Callable[[], Iterator[Tensor]]


class Widener:
    """The recipe for one small checkpoint and one shape. Raises ValueError when the two do not fit."""

    def __init__(self, source: Path, shape: Shape, dtype: torch.dtype, seed: int = 0, noise: float = 1.0) -> None:
        self.config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
        self.small = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
        self.embedding = next(self.small[name] for name in EMBEDDINGS if name in self.small)
        self.shape, self.dtype, self.noise = shape, dtype, noise
        self.generator = torch.Generator().manual_seed(seed)
        self.vocab_size, self.d_small = self.embedding.shape
        self.heads_small: int = self.config["encoder_attention_heads"]
        self.head_small = self.d_small // self.heads_small
        self.copies = shape.d_model // self.d_small
        self.ffn_copies = shape.ffn // self.config["encoder_ffn_dim"]
        self.head_copies = shape.d_model // shape.heads // self.head_small
        self._check()
        self.inner = self._inner_order()
        self.layers = {side: _spread(self.config[f"{side}_layers"], shape.layers) for side in ("encoder", "decoder")}
        signs = torch.tensor([1.0, -1.0] * (self.copies // 2))
        gain = self.small["model.decoder.layer_norm.weight"] / math.sqrt(self.copies)
        self.delta_size = 0.5 * gain.pow(2).mean().sqrt()
        self.delta = torch.where(self._uniform(self.d_small) < 0.5, -self.delta_size, self.delta_size)
        self.signs = signs[:, None]

    def entries(self) -> Iterator[Entry]:
        """Every tensor, in the file's order. The generator of noise is drawn on in this order too."""
        wide, ffn = self.shape.d_model, self.shape.ffn
        yield Entry("model.shared.weight", self.dtype, (self.shape.vocab_size, wide), self._embedding_rows)
        for side in ("encoder", "decoder"):
            table = (self.config["max_position_embeddings"] + 2, wide)
            yield Entry(f"model.{side}.embed_positions.weights", torch.float32, table, self._position_rows)
            attentions = ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn")
            for index in range(self.shape.layers):
                prefix = f"model.{side}.layers.{index}"
                for attention in attentions:
                    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                        yield from self._pair(f"{prefix}.{attention}.{projection}", (wide, wide))
                    yield from self._pair(f"{prefix}.{attention}_layer_norm", (wide,))
                yield from self._pair(f"{prefix}.fc1", (ffn, wide))
                yield from self._pair(f"{prefix}.fc2", (wide, ffn))
                yield from self._pair(f"{prefix}.final_layer_norm", (wide,))
            yield from self._pair(f"model.{side}.layer_norm", (wide,))

    def wide_config(self) -> dict[str, Any]:
        """config.json of the result. `widened` tells loaders of other libraries that the positions are the file's."""
        layers, heads, ffn = self.shape.layers, self.shape.heads, self.shape.ffn
        return self.config | {
            "d_model": self.shape.d_model,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "num_hidden_layers": layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": ffn,
            "decoder_ffn_dim": ffn,
            "vocab_size": self.shape.vocab_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "widened": {"d_model": self.d_small, "copies": self.copies, "vocab_size": self.vocab_size},
        }

    def _check(self) -> None:
        config, shape = self.config, self.shape
        fits = {
            "pre-norm M2M100 with relu and scaled embeddings": config["scale_embedding"]
            and config.get("activation_function", "relu") == "relu",
            "as many encoder as decoder heads": self.heads_small == config["decoder_attention_heads"],
            "d_model an even multiple": self.copies * self.d_small == shape.d_model and self.copies % 2 == 0,
            "ffn a multiple": self.ffn_copies * config["encoder_ffn_dim"] == shape.ffn,
            "heads and their size multiples": shape.heads % self.heads_small == 0
            and self.head_copies * self.head_small * shape.heads == shape.d_model,
            "no fewer layers": max(config["encoder_layers"], config["decoder_layers"]) <= shape.layers,
            "no smaller vocabulary": self.vocab_size <= shape.vocab_size,
        }
        for wish, is_met in fits.items():
            if not is_met:
                raise ValueError(f"cannot widen this checkpoint to {shape}: needs {wish}")

    def _inner_order(self) -> Tensor:
        """For each wide attention feature the index (copy * d_small + small feature) of what it computes."""
        r, small = self.head_copies, self.heads_small
        slots = [(r * (head // small) + part, head % small) for head in range(self.shape.heads) for part in range(r)]
        feature = torch.arange(self.head_small)
        return torch.cat([feature + copy * self.d_small + head * self.head_small for copy, head in slots])

    # Tensors by name

    def _pair(self, name: str, shape: tuple[int, ...]) -> Iterator[Entry]:
        for part, size in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
            yield Entry(part, self.dtype, size, lambda part=part: iter((self._make(part),)))  # type: ignore[misc]

    def _make(self, name: str) -> Tensor:
        """The wide tensor of a layer or of a final norm."""
        parts = name.split(".")
        side, kind = parts[1], parts[-1]
        if parts[2] == "layer_norm":
            return self._final_norm(name, side, kind)
        index, counts = self.layers[side][int(parts[3])]
        rest = parts[4:]
        small = self.small[".".join([*parts[:3], str(index), *rest])]
        if rest[0].endswith("layer_norm"):
            return small.repeat(self.copies)
        if rest[0] == "fc1":
            return (
                small.repeat(self.ffn_copies) if kind == "bias" else self._linear(small, self.ffn_copies, self.copies)
            )
        if rest[0] == "fc2":
            return self._output(small, kind, self.ffn_copies, counts)
        if rest[1] == "out_proj":
            out = self._output(small, kind, self.copies, counts)
            return out if kind == "bias" else out[:, self.inner]
        if rest[1] == "q_proj":
            small = small / math.sqrt(self.head_copies)
        return small.repeat(self.copies)[self.inner] if kind == "bias" else self._input(small)

    def _final_norm(self, name: str, side: str, kind: str) -> Tensor:
        wide = self.small[name].repeat(self.copies)
        if side == "decoder":
            wide = wide / math.sqrt(self.copies)
            if kind == "bias":
                wide = wide + (self.signs * self.delta).reshape(-1)
        return wide

    def _input(self, small: Tensor) -> Tensor:
        """Query, key or value: its rows in the order in which the heads hold the copies."""
        return self._linear(small, self.copies, self.copies)[self.inner]

    def _output(self, small: Tensor, kind: str, in_copies: int, counts: bool) -> Tensor:
        """A projection into the residual stream; one that adds exactly nothing where the layer does not count."""
        if kind == "bias":
            return small.repeat(self.copies) * counts
        return self._linear(small, self.copies, in_copies, counts=counts)

    def _linear(self, small: Tensor, out_copies: int, in_copies: int, *, counts: bool = True) -> Tensor:
        return torch.cat([self._columns(small, in_copies, counts) for _ in range(out_copies)])

    def _columns(self, small: Tensor, copies: int, counts: bool) -> Tensor:
        """[rows, copies * in] whose product with a tiled vector is that of `small` (or zero): the columns over `copies`
        plus noise, of opposite sign in neighbours. The odd copy takes what rounding left in the even one."""
        share = small / copies
        keep = share if counts else torch.zeros_like(share)
        if copies % 2:
            return keep.repeat(1, copies)
        loudness = share.pow(2).mean().sqrt() * self.noise
        out = torch.empty(small.shape[0], copies, small.shape[1])
        for copy in range(0, copies, 2):
            noise = torch.randn(small.shape, generator=self.generator) * loudness
            out[:, copy] = (keep + noise).to(self.dtype).float()
            out[:, copy + 1] = 2 * keep - out[:, copy]
        return out.reshape(small.shape[0], -1)

    def _embedding_rows(self) -> Iterator[Tensor]:
        yield self.embedding.repeat(1, self.copies) / math.sqrt(self.copies)
        for first in range(self.vocab_size, self.shape.vocab_size, CHUNK_ROWS):
            yield self._padding_rows(min(CHUNK_ROWS, self.shape.vocab_size - first))

    def _padding_rows(self, count: int) -> Tensor:
        """Rows (u, -u, v, -v, …): a tiled hidden state cancels, the last norm's ±delta does not and gives the logit."""
        loudness = self.embedding.pow(2).mean().sqrt() / math.sqrt(self.copies)
        weight = PADDING_LOGIT / (self.copies * self.delta.pow(2).sum())
        spare = (loudness**2 - (weight * self.delta_size) ** 2).clamp_min((0.25 * loudness) ** 2).sqrt()
        u = torch.randn(count, self.copies // 2, self.d_small, generator=self.generator) * spare
        u -= (u @ self.delta / self.delta.pow(2).sum()).unsqueeze(-1) * self.delta
        u += weight * self.delta
        return (u.repeat_interleave(2, dim=1) * self.signs).reshape(count, -1)

    def _position_rows(self) -> Iterator[Tensor]:
        rows = self.config["max_position_embeddings"] + 2
        yield _sinusoids(rows, self.d_small, self.config["pad_token_id"]).repeat(1, self.copies)

    def _uniform(self, size: int) -> Tensor:
        return torch.rand(size, generator=self.generator)


def widen(source: Path, target: Path, shape: Shape, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
    """Write the wide form of checkpoint `source` into the folder `target`."""
    widener = Widener(source, shape, dtype, seed)
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "model.safetensors", list(widener.entries()))
    (target / "config.json").write_text(json.dumps(widener.wide_config(), indent=2) + "\n", encoding="utf-8")
    for name in ("sentencepiece.bpe.model", "generation_config.json", "languages.json", "tokenizer_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def cached(name: str, cache_dir: Path = DEFAULT_CACHE, source: Path = DEMO_FOLDER, dtype: str = "float32") -> Path:
    """Folder of the wide checkpoint `name` (a key of SHAPES), made now unless the cache has it."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = cache_dir.expanduser() / f"{name}-{dtype}-{read_checkpoint(source).fingerprint[:8]}-{recipe}"
    if not folder.is_dir():
        print(f"making the {name} checkpoint in {folder} (once)", flush=True)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        widen(source, unfinished, SHAPES[name], getattr(torch, dtype))
        unfinished.rename(folder)
    return folder


def _spread(count: int, layers: int) -> list[tuple[int, bool]]:
    """For each wide layer: the small layer to copy, and whether it counts (the others add zero)."""
    places = [index * layers // count for index in range(count)]
    return [(max(i for i, place in enumerate(places) if place <= layer), layer in places) for layer in range(layers)]


def _sinusoids(rows: int, width: int, pad_id: int) -> Tensor:
    """M2M100's fixed positions: sines, then cosines; the padding's row is zero."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.int64).float() * -(math.log(10_000) / (half - 1)))
    angle = torch.arange(rows, dtype=torch.int64).float()[:, None] * frequency
    table = torch.cat([angle.sin(), angle.cos()], dim=1)
    table[pad_id] = 0
    return table


def _write(path: Path, entries: list[Entry]) -> None:
    """A safetensors file, tensor by tensor. Format: https://github.com/huggingface/safetensors#format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        size = math.prod(entry.shape) * entry.dtype.itemsize
        place = {"dtype": _SAFETENSORS_NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [at, at + size]}
        header[entry.name] = place
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for entry in entries:
            left = math.prod(entry.shape)
            for part in entry.rows():
                assert part.shape[1:] == entry.shape[1:], (entry.name, part.shape, entry.shape)
                left -= part.numel()
                file.write(part.to(entry.dtype).contiguous().view(torch.uint8).numpy().data)
            assert left == 0, (entry.name, left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--source", type=Path, default=DEMO_FOLDER, help="the small checkpoint")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    options = parser.parse_args()
    print(cached(options.shape, options.cache_dir, options.source, options.dtype))


if __name__ == "__main__":
    main()
