"""Encoder and decoder in int8 as whole native passes: builds the library's tables out of the layer objects.

Same layers, same arithmetic as fused.py's; which form runs changes speed and rounding only.
"""

from __future__ import annotations

from torch import Tensor

from nllbd.kernels.native import Quantized
from nllbd.kernels.native.passes import (
    CrossTable,
    DecoderTable,
    EncoderTable,
    LinearTable,
    Passes,
    RowsTable,
    pointer,
)
from nllbd.model.decoder import Decoder, DecoderLayer, DecoderRows, KVCache
from nllbd.model.encoder import Encoder, EncoderLayer, SourceBatch
from nllbd.model.layers import FeedForward, Norm
from nllbd.model.linear import Linear, PackedLinear


class NativePasses:
    """The network's passes, tables built once. Encoder and decoder must outlive it: the tables point into them."""

    def __init__(self, passes: Passes, encoder: Encoder, decoder: Decoder) -> None:
        self._passes = passes
        self._encoder, self._decoder = encoder, decoder
        self._encoder_tables = (EncoderTable * len(encoder.layers))(*map(_encoder_table, encoder.layers))
        self._decoder_tables = (DecoderTable * len(decoder.layers))(*map(_decoder_table, decoder.layers))
        self._cross_tables = (CrossTable * len(decoder.layers))(
            *(CrossTable(_linear(layer.cross_kv)) for layer in decoder.layers)
        )

    def keep_times(self) -> Tensor:
        """As in `Passes`."""
        return self._passes.keep_times()

    def set_num_threads(self, num_threads: int) -> None:
        self._passes.num_threads = num_threads

    def encode(self, hidden: Tensor, batch: SourceBatch) -> Quantized:
        """hidden [N, d_model], overwritten → the encoder's output after its last norm, in int8."""
        norm = self._encoder.norm
        heads = self._encoder.layers[0].num_heads
        return self._passes.encode(self._encoder_tables, norm.weight, norm.bias, batch.starts, heads, hidden)

    def write_cross_kv(self, encoded: Quantized, slots: Tensor, cache: KVCache) -> None:
        """encoded as `encode` gives it; slots [N]."""
        for layer, table in enumerate(self._cross_tables):
            table.keys, table.values = pointer(cache.keys[layer]), pointer(cache.values[layer])
        self._passes.write_cross(self._cross_tables, encoded, slots)

    def decode(self, hidden: Tensor, rows: DecoderRows, cache: KVCache) -> Tensor:
        """hidden [R, d_model], overwritten → the decoder's output before its last norm."""
        for layer, table in enumerate(self._decoder_tables):
            table.keys, table.values = pointer(cache.keys[layer]), pointer(cache.values[layer])
        self._passes.decode(self._decoder_tables, _rows_table(rows, cache), hidden)
        return hidden

    def project_topk(self, projection: Linear, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """hidden [P, d_model] before the last norm → (log-probabilities [P, k], ids [P, k]), best first."""
        assert isinstance(projection, PackedLinear)
        norm = self._decoder.norm
        return self._passes.project(norm.weight, norm.bias, projection.packed, hidden, k)


def _linear(layer: Linear) -> LinearTable:
    assert isinstance(layer, PackedLinear)
    return layer.packed.table()


def _norm(norm: Norm) -> tuple[int, int]:
    return pointer(norm.weight), pointer(norm.bias)


def _blocks(block: FeedForward) -> tuple[LinearTable, LinearTable]:
    return _linear(block.expand), _linear(block.contract)


def _encoder_table(layer: EncoderLayer) -> EncoderTable:
    return EncoderTable(
        *_norm(layer.norm),
        *_norm(layer.feed_forward.norm),
        _linear(layer.qkv),
        _linear(layer.out),
        *_blocks(layer.feed_forward),
    )


def _decoder_table(layer: DecoderLayer) -> DecoderTable:
    return DecoderTable(
        *_norm(layer.self_norm),
        *_norm(layer.cross_norm),
        *_norm(layer.feed_forward.norm),
        _linear(layer.qkv),
        _linear(layer.self_out),
        _linear(layer.cross_query),
        _linear(layer.cross_out),
        *_blocks(layer.feed_forward),
    )


def _rows_table(rows: DecoderRows, cache: KVCache) -> RowsTable:
    num_rows, self_width = rows.self_slots.shape
    groups, cross_width = rows.cross_slots.shape
    return RowsTable(
        pointer(rows.write_slots),
        pointer(rows.self_slots),
        pointer(rows.self_lengths),
        pointer(rows.cross_slots),
        pointer(rows.cross_lengths),
        pointer(rows.group_rows),
        pointer(rows.row_places),
        num_rows,
        self_width,
        groups,
        cross_width,
        rows.group_rows.shape[1],
        *cache.keys.shape[2:],
    )
