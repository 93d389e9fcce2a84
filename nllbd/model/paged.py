"""The network's passes on fixed shapes: rows that find their KV through block tables, sources packed without padding.

Runs the layer objects of encoder.py and decoder.py on a set of kernels (kernels/dispatch.py), in a form that a CUDA
graph can capture: nothing waits for the device, no shape depends on its values. The residual stream is float32, as on
the CPU; matmuls and KV have the precision of the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nllbd.checkpoint import ModelConfig
from nllbd.errors import ConfigError
from nllbd.kernels.dispatch import Kernels, MissingTriton, pick_kernels
from nllbd.kernels.embed_rows_ref import Embedding, embed_tokens
from nllbd.kernels.paged import PackedSources, PagedRows
from nllbd.model.decoder import DecoderLayer, KVCache
from nllbd.model.layers import Norm
from nllbd.model.linear import DenseLinear, Linear
from nllbd.model.nllb import NllbModel
from nllbd.model.positions import POSITION_OFFSET

__all__ = ["Kernels", "PackedSources", "PagedNetwork", "PagedRows"]


class DenseStream:
    """The residual stream [R, d_model], with matmuls by the library: an addition and the next norm are one kernel."""

    def __init__(self, kernels: Kernels, hidden: Tensor, dtype: torch.dtype) -> None:
        self._kernels, self._hidden, self._dtype = kernels, hidden, dtype
        self._added: Tensor | None = None

    def normed(self, norm: Norm) -> Tensor:
        """The norm of the stream, in the weights' precision."""
        out = self._kernels.add_norm(self._hidden, self._added, norm.weight, norm.bias, self._dtype)
        self._added = None
        return out

    def linear(self, norm: Norm, layer: Linear, *, relu: bool = False) -> Tensor:
        """layer(norm(stream))."""
        out = _dense(layer)(self.normed(norm))
        return torch.relu_(out) if relu else out

    def add(self, layer: Linear, x: Tensor) -> None:
        """stream += layer(x)."""
        assert self._added is None
        self._added = _dense(layer)(x)


class FusedStream(DenseStream):
    """The same for few rows: norm, matmul, ReLU and addition in one kernel each time."""

    def linear(self, norm: Norm, layer: Linear, *, relu: bool = False) -> Tensor:
        dense = _dense(layer)
        return self._kernels.row_linear(
            self._hidden, dense.weight, dense.bias, norm=(norm.weight, norm.bias), relu=relu
        )

    def add(self, layer: Linear, x: Tensor) -> None:
        dense = _dense(layer)
        self._kernels.row_linear(x, dense.weight, dense.bias, residual=self._hidden)


class PagedNetwork:
    """`model` on `kernels` (by default those of its device), with the KV cache of one engine.

    Raises ConfigError for precisions without dense weights, and where a CUDA device lacks Triton.
    """

    def __init__(self, model: NllbModel, cache: KVCache, kernels: Kernels | None = None) -> None:
        if model.precision == "int8":
            raise ConfigError("dtype int8 runs on the CPU only; use float16, bfloat16 or float32", field="dtype")
        try:
            self.kernels = kernels or pick_kernels(model.device)
        except MissingTriton as error:
            raise ConfigError(f"device {model.device}: {error}", field="device") from None
        self.model, self.cache = model, cache
        self.dtype: torch.dtype = getattr(torch, model.precision)
        self._encoder_embedding = _embedding(model, model.encoder_positions)
        self._decoder_embedding = _embedding(model, model.decoder_positions)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def encode(self, sources: PackedSources) -> None:
        """Run the encoder and write each layer's cross KV at `sources.slots`."""
        kernels, encoder = self.kernels, self.model.encoder
        stream = DenseStream(kernels, embed_tokens(sources.ids, sources.positions, self._encoder_embedding), self.dtype)
        for layer in encoder.layers:
            qkv = stream.linear(layer.norm, layer.qkv)
            stream.add(layer.out, kernels.packed_attention(qkv, sources, layer.num_heads))
            expanded = stream.linear(layer.feed_forward.norm, layer.feed_forward.expand, relu=True)
            stream.add(layer.feed_forward.contract, expanded)
        encoded = stream.normed(encoder.norm)
        for index, decoder_layer in enumerate(self.model.decoder.layers):
            key_value = _dense(decoder_layer.cross_kv)(encoded)
            kernels.write_kv(key_value, sources.slots, self.cache.keys[index], self.cache.values[index])

    def decode(self, rows: PagedRows, k: int, *, fused: bool = False) -> tuple[Tensor, Tensor]:
        """One pass over the rows, whose self KV it writes → the k best (log-probabilities [R, k], ids [R, k]) of each.

        fused: by the kernels for few rows. Empty rows give anything.
        """
        hidden, slots = self.kernels.embed_rows(rows, self._decoder_embedding)
        stream = (FusedStream if fused else DenseStream)(self.kernels, hidden, self.dtype)
        for index, layer in enumerate(self.model.decoder.layers):
            self._decode_layer(stream, layer, rows, slots, self.cache.keys[index], self.cache.values[index])
        normed = stream.normed(self.model.decoder.norm)
        return self.kernels.project_topk(self.model.embedding, normed, k)

    def _decode_layer(
        self, stream: DenseStream, layer: DecoderLayer, rows: PagedRows, slots: Tensor, keys: Tensor, values: Tensor
    ) -> None:
        kernels, d_model = self.kernels, self.config.d_model
        heads = (-1, layer.num_heads, d_model // layer.num_heads)
        qkv = stream.linear(layer.self_norm, layer.qkv)
        kernels.write_kv(qkv[:, d_model:], slots, keys, values)
        mixed = kernels.decode_attention(qkv[:, :d_model].view(heads), keys, values, rows)
        stream.add(layer.self_out, mixed.reshape(-1, d_model))
        query = stream.linear(layer.cross_norm, layer.cross_query)
        mixed = kernels.grouped_attention(query.view(heads), keys, values, rows)
        stream.add(layer.cross_out, mixed.reshape(-1, d_model))
        expanded = stream.linear(layer.feed_forward.norm, layer.feed_forward.expand, relu=True)
        stream.add(layer.feed_forward.contract, expanded)


def _dense(layer: Linear) -> DenseLinear:
    assert isinstance(layer, DenseLinear)
    return layer


def _embedding(model: NllbModel, positions: Tensor) -> Embedding:
    return Embedding(model.embedding, positions, model.embedding_scale, model.config.pad_id, POSITION_OFFSET)
