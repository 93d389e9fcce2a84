"""The M2M100 decoder over *rows*: one row = one token position of one lane, with its own KV history.

A decode step has one row a lane; a prefill has several rows a lane. A row attends to the slots listed for it, so the
two mix freely in one pass and no causal mask is needed. KV is written before it is read, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nllbd.checkpoint import ModelConfig
from nllbd.kernels.cross_attention_ref import cross_attention
from nllbd.kernels.self_attention_ref import self_attention
from nllbd.model.layers import LayerLoader


@dataclass(frozen=True, slots=True)
class DecoderRows:
    """R rows of one pass, in G cross-attention groups of at most W rows (rows of one sequence share a group).

    tokens, positions: [R]; positions are 0-based. write_slots: [R], where each row's KV goes.
    self_slots: [R, T] slots of positions 0..T-1 of the row's hypothesis; self_lengths: [R], how many are valid.
    cross_slots: [G, S] slots of the source positions; cross_lengths: [G].
    group_rows: [G, W] the row at each place of a group (0 where empty); row_places: [R] index into flattened G*W.
    """

    tokens: Tensor
    positions: Tensor
    write_slots: Tensor
    self_slots: Tensor
    self_lengths: Tensor
    cross_slots: Tensor
    cross_lengths: Tensor
    group_rows: Tensor
    row_places: Tensor


class KVCache:
    """The pool: K and V of `num_slots` token positions for each decoder layer.

    keys, values: [num_layers, num_slots, H, D]. Which slots belong to whom is the scheduler's business.
    """

    def __init__(self, config: ModelConfig, num_slots: int, dtype: torch.dtype, device: torch.device) -> None:
        heads = config.decoder_heads
        shape = (config.decoder_layers, num_slots, heads, config.d_model // heads)
        # empty, not zeros: untouched pages cost no memory, and no slot is read before it is written
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)

    @staticmethod
    def bytes_per_slot(config: ModelConfig, dtype: torch.dtype) -> int:
        return config.decoder_layers * 2 * config.d_model * dtype.itemsize


class DecoderLayer:
    """Pre-norm self-attention over ancestry, cross-attention over the source, feed-forward."""

    def __init__(self, load: LayerLoader, prefix: str, config: ModelConfig) -> None:
        self.num_heads = config.decoder_heads
        self.self_norm = load.norm(f"{prefix}.self_attn_layer_norm")
        self.qkv = load.square(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj")
        self.self_out = load.square(f"{prefix}.self_attn", "out_proj")
        self.cross_norm = load.norm(f"{prefix}.encoder_attn_layer_norm")
        self.cross_query = load.square(f"{prefix}.encoder_attn", "q_proj")
        self.cross_kv = load.square(f"{prefix}.encoder_attn", "k_proj", "v_proj")
        self.cross_out = load.square(f"{prefix}.encoder_attn", "out_proj")
        self.feed_forward = load.feed_forward(prefix, config.decoder_ffn)

    def __call__(self, hidden: Tensor, rows: DecoderRows, keys: Tensor, values: Tensor) -> Tensor:
        """hidden: [R, d_model]; keys, values: this layer's [num_slots, H, D], written in place."""
        num_rows, d_model = hidden.shape
        shape = (num_rows, self.num_heads, d_model // self.num_heads)
        query, key, value = self.qkv(self.self_norm(hidden)).chunk(3, dim=1)
        keys.index_copy_(0, rows.write_slots, key.view(shape).to(keys.dtype))
        values.index_copy_(0, rows.write_slots, value.view(shape).to(keys.dtype))
        mixed = self_attention(query.view(shape), keys, values, rows.self_slots, rows.self_lengths)
        hidden = hidden + self.self_out(mixed.reshape(num_rows, d_model))

        query = self.cross_query(self.cross_norm(hidden)).view(shape)
        mixed = cross_attention(
            query, keys, values, rows.cross_slots, rows.cross_lengths, rows.group_rows, rows.row_places
        )
        hidden = hidden + self.cross_out(mixed.reshape(num_rows, d_model))
        return hidden + self.feed_forward(hidden)


class Decoder:
    """All layers and the final norm; takes embedded tokens."""

    def __init__(self, load: LayerLoader, config: ModelConfig) -> None:
        self.layers = [DecoderLayer(load, f"model.decoder.layers.{i}", config) for i in range(config.decoder_layers)]
        self.norm = load.norm("model.decoder.layer_norm")

    def write_cross_kv(self, encoded: Tensor, slots: Tensor, cache: KVCache) -> None:
        """Project the encoder's output [num_tokens, d_model] into each layer's cross KV at `slots` [num_tokens]."""
        for index, layer in enumerate(self.layers):
            key, value = layer.cross_kv(encoded).chunk(2, dim=1)
            shape = (encoded.shape[0], layer.num_heads, -1)
            cache.keys[index].index_copy_(0, slots, key.view(shape).to(cache.keys.dtype))
            cache.values[index].index_copy_(0, slots, value.view(shape).to(cache.keys.dtype))

    def __call__(self, hidden: Tensor, rows: DecoderRows, cache: KVCache) -> Tensor:
        """hidden: [R, d_model] embedded tokens → [R, d_model]; writes each row's KV."""
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rows, cache.keys[index], cache.values[index])
        return self.norm(hidden)
