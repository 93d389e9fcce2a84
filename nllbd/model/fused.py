"""Encoder and decoder in int8 on the native kernels: the same layers, everything between two matmuls in one call.

Runs the layer objects of encoder.py and decoder.py; which of the two forms runs changes speed and rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nllbd.kernels.int8_linear import Int8Linear
from nllbd.kernels.native import Accumulator, Native, Quantized, TopK
from nllbd.model.decoder import Decoder, DecoderRows, KVCache
from nllbd.model.encoder import Encoder, SourceBatch
from nllbd.model.layers import FeedForward, Norm


def _matmul(layer: object, x: Quantized) -> Accumulator:
    assert isinstance(layer, Int8Linear)
    assert layer.bias is not None
    return Accumulator(layer.accumulate(x.rows), x.scale, layer.bias)


class Fused:
    """The network's passes on `native`."""

    def __init__(self, native: Native) -> None:
        self.native = native

    def encode(self, encoder: Encoder, hidden: Tensor, batch: SourceBatch) -> Quantized:
        """hidden [N, d_model], overwritten → the encoder's output after its last norm, in int8."""
        added: Accumulator | None = None
        for layer in encoder.layers:
            qkv = _matmul(layer.qkv, self._norm(hidden, added, layer.norm))
            mixed = self.native.encoder_attention(qkv, batch.starts, layer.num_heads)
            added = self._feed_forward(layer.feed_forward, hidden, _matmul(layer.out, mixed))
        return self._norm(hidden, added, encoder.norm)

    def write_cross_kv(self, decoder: Decoder, encoded: Quantized, slots: Tensor, cache: KVCache) -> None:
        for index, layer in enumerate(decoder.layers):
            kv = _matmul(layer.cross_kv, encoded)
            self.native.store_cross(kv, slots, cache.keys[index], cache.values[index])

    def decode(self, decoder: Decoder, hidden: Tensor, rows: DecoderRows, cache: KVCache) -> Tensor:
        """hidden [R, d_model], overwritten → the decoder's output before its last norm."""
        added: Accumulator | None = None
        for index, layer in enumerate(decoder.layers):
            keys, values = cache.keys[index], cache.values[index]
            qkv = _matmul(layer.qkv, self._norm(hidden, added, layer.self_norm))
            mixed = self.native.self_attention(qkv, keys, values, rows.write_slots, rows.self_slots, rows.self_lengths)
            query = _matmul(layer.cross_query, self._norm(hidden, _matmul(layer.self_out, mixed), layer.cross_norm))
            mixed = self.native.cross_attention(
                query, keys, values, rows.cross_slots, rows.cross_lengths, rows.group_rows, rows.row_places
            )
            added = self._feed_forward(layer.feed_forward, hidden, _matmul(layer.cross_out, mixed))
        assert added is not None
        return hidden.add_(added.values * added.scale[:, None] + added.bias)

    def project_topk(self, norm: Norm, tiles: Sequence[object], hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """hidden [P, d_model] before `norm` → (log-probabilities [P, k], ids [P, k]), best first."""
        x = self._norm(hidden, None, norm)
        best = TopK(hidden.shape[0], k)
        offset = 0
        for tile in tiles:
            assert isinstance(tile, Int8Linear)
            self.native.topk_tile(tile.accumulate(x.rows), x.scale, offset, best)
            offset += tile.out_features
        return best.log_probs(), best.ids

    def _norm(self, hidden: Tensor, added: Accumulator | None, norm: Norm) -> Quantized:
        return self.native.add_norm_quantize(hidden, added, norm.weight, norm.bias)

    def _feed_forward(self, block: FeedForward, hidden: Tensor, added: Accumulator) -> Accumulator:
        expanded = _matmul(block.expand, self._norm(hidden, added, block.norm))
        return _matmul(block.contract, self.native.relu_quantize(expanded))
