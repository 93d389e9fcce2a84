"""The M2M100 encoder on packed batches: [num_tokens, d_model], no padding outside attention."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.checkpoint import ModelConfig
from nllbd.kernels.attention_ref import length_mask, padded_attention
from nllbd.model.layers import LayerLoader

BUCKET_RATIO = 1.5  # sources within this ratio of lengths share a padded attention call
BUCKET_SLACK = 8  # tokens; short sources always share one


@dataclass(frozen=True, slots=True)
class Bucket:
    """A run of packed tokens whose sources are padded together for attention.

    tokens: where the run lies. pad_index: [num_sources, width], index into the run of each position (0 where padded).
    mask: [num_sources, width] boolean, or None when nothing is padded. unpad_index: the way back, into the flattened
    padded form.
    """

    tokens: slice
    pad_index: Tensor
    mask: Tensor | None
    unpad_index: Tensor


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Sources of several sequences, shortest first, packed one after another.

    ids: [num_tokens]. positions: [num_tokens], 0-based in each source. starts: [num_sources + 1], where each begins.
    """

    ids: Tensor
    positions: Tensor
    starts: Tensor
    buckets: tuple[Bucket, ...]

    @staticmethod
    def pack(sources: list[tuple[int, ...]], device: torch.device) -> SourceBatch:
        """`sources` must be sorted by length."""
        lengths = [len(source) for source in sources]
        return SourceBatch(
            ids=torch.tensor([token for source in sources for token in source], device=device),
            positions=torch.cat([torch.arange(length) for length in lengths]).to(device),
            starts=torch.tensor([0, *itertools.accumulate(lengths)], device=device),
            buckets=tuple(_buckets(lengths, device)),
        )


def _buckets(lengths: list[int], device: torch.device) -> Iterator[Bucket]:
    first = token = 0
    while first < len(lengths):
        limit = lengths[first] * BUCKET_RATIO + BUCKET_SLACK
        last = first
        while last < len(lengths) and lengths[last] <= limit:
            last += 1
        part = torch.tensor(lengths[first:last])
        width = lengths[last - 1]
        mask = length_mask(part, width)
        starts = part.cumsum(0) - part
        num_tokens = int(part.sum())
        yield Bucket(
            tokens=slice(token, token + num_tokens),
            pad_index=torch.where(mask, starts[:, None] + torch.arange(width), 0).to(device),
            mask=None if lengths[first] == width else mask.to(device),
            unpad_index=mask.flatten().nonzero().squeeze(1).to(device),
        )
        first, token = last, token + num_tokens


class EncoderLayer:
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, load: LayerLoader, prefix: str, config: ModelConfig) -> None:
        self.num_heads = config.encoder_heads
        self.norm = load.norm(f"{prefix}.self_attn_layer_norm")
        self.qkv = load.square(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj")
        self.out = load.square(f"{prefix}.self_attn", "out_proj")
        self.feed_forward = load.feed_forward(prefix, config.encoder_ffn)

    def __call__(self, hidden: Tensor, batch: SourceBatch) -> Tensor:
        """hidden: [num_tokens, d_model] → the same shape."""
        qkv = self.qkv(self.norm(hidden))
        mixed = torch.cat([self._attend(qkv[bucket.tokens], bucket) for bucket in batch.buckets])
        hidden = hidden + self.out(mixed)
        return hidden + self.feed_forward(hidden)

    def _attend(self, qkv: Tensor, bucket: Bucket) -> Tensor:
        """qkv: [tokens of the bucket, 3 * d_model] → [tokens of the bucket, d_model]."""
        num_sources, width = bucket.pad_index.shape
        d_model = qkv.shape[1] // 3
        padded = qkv[bucket.pad_index.flatten()].view(num_sources, width, 3, self.num_heads, d_model // self.num_heads)
        query, key, value = padded.unbind(2)
        mixed = padded_attention(query, key, value, bucket.mask).reshape(num_sources * width, d_model)
        return mixed[bucket.unpad_index]


class Encoder:
    """All layers and the final norm; takes embedded tokens."""

    def __init__(self, load: LayerLoader, config: ModelConfig) -> None:
        self.layers = [EncoderLayer(load, f"model.encoder.layers.{i}", config) for i in range(config.encoder_layers)]
        self.norm = load.norm("model.encoder.layer_norm")

    def __call__(self, hidden: Tensor, batch: SourceBatch) -> Tensor:
        """hidden: [num_tokens, d_model] embedded sources → [num_tokens, d_model]."""
        for layer in self.layers:
            hidden = layer(hidden, batch)
        return self.norm(hidden)
