"""The whole network: embeddings, encoder, decoder, vocabulary projection. Plain tensors in, plain tensors out.

Architecture: M2M100 (Fan et al. 2020) as used by NLLB-200 (NLLB Team 2022); numerically the same as transformers'
`M2M100ForConditionalGeneration`, which the tests compare it with. Knows nothing of beams, scheduling or text.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from nllbd.checkpoint import Checkpoint, ModelConfig
from nllbd.errors import CheckpointError
from nllbd.kernels.native import Quantized, load_native
from nllbd.kernels.native.passes import Passes, fits
from nllbd.kernels.project_topk_ref import TILE_ROWS, project_topk, rescored_topk
from nllbd.model.decoder import Decoder, DecoderRows, KVCache
from nllbd.model.encoder import Encoder, SourceBatch
from nllbd.model.fused import Fused
from nllbd.model.layers import ACTIVATION_DTYPE, LayerLoader
from nllbd.model.linear import Linear, make_linear
from nllbd.model.passes import NativePasses
from nllbd.model.positions import POSITION_OFFSET, sinusoid_table
from nllbd.model.weights import LinearWeight, Weights, release

EMBEDDING_NAMES = ("model.shared.weight", "model.encoder.embed_tokens.weight", "lm_head.weight")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


class NllbModel:
    """An NLLB-200 network loaded for inference in one precision on one device.

    `encoder_weights` and `decoder_weights` (projection included) count the weights that a token meets in a pass.

    Raises CheckpointError when the weights do not match config.json.
    """

    def __init__(
        self, checkpoint: Checkpoint, precision: str, device: torch.device, *, use_native: bool = True
    ) -> None:
        self.config = config = checkpoint.config
        self.precision, self.device = precision, device
        self.kv_dtype = torch.float16 if precision == "int8" else getattr(torch, precision)
        native = load_native() if precision == "int8" and use_native else None
        can_pass = native is not None and native.has_passes and _fit_passes(config)
        passes = Passes(native) if native is not None and can_pass else None
        if config.d_model % config.encoder_heads or config.d_model % config.decoder_heads:
            raise CheckpointError(f"{checkpoint.path}: d_model {config.d_model} is not divisible by its heads")
        weights = Weights(checkpoint.path)
        shared = _shared_embedding(weights, config.vocab_size, config.d_model)
        # int8 keeps the look-up table as stored (mapped, from a local disk), so that it is not held in float32 as well
        self.embedding = shared if precision == "int8" else shared.to(device, getattr(torch, precision))
        self.embedding_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.encoder_positions = self._positions(weights, "encoder")
        self.decoder_positions = self._positions(weights, "decoder")
        load = LayerLoader(weights, config.d_model, precision, device, passes)
        self.encoder = Encoder(load, config)
        self.decoder = Decoder(load, config)
        self.projection = self._projection(weights, passes)
        self.fused = None if native is None or passes else Fused(native)
        self.passes = NativePasses(passes, self.encoder, self.decoder) if passes else None
        self.encoder_weights = config.encoder_layers * (4 * config.d_model + 2 * config.encoder_ffn) * config.d_model
        decoder = config.decoder_layers * (6 * config.d_model + 2 * config.decoder_ffn) * config.d_model
        self.decoder_weights = decoder + config.vocab_size * config.d_model

    def _positions(self, weights: Weights, side: str) -> Tensor:
        """The checkpoint's own table where it has one, else the sinusoids."""
        table = weights.get(f"model.{side}.embed_positions.weights")
        if table is None:
            rows = self.config.max_positions + POSITION_OFFSET
            table = sinusoid_table(rows, self.config.d_model, self.config.pad_id)
        return table.to(self.device, ACTIVATION_DTYPE)

    def _projection(self, weights: Weights, passes: Passes | None) -> list[Linear]:
        """The tied output matrix, in tiles unless for the passes; a pre-quantized checkpoint holds it a second time,
        in int8."""
        matrix = LinearWeight(self.embedding)
        if self.precision == "int8" and "lm_head.weight" in weights:
            matrix = weights.take_linear("lm_head.weight", self.config.vocab_size, self.config.d_model)
        # tiles of equal size: a small rest would be slow out of proportion
        num_tiles = 1 if passes else max(1, round(self.config.vocab_size / TILE_ROWS))
        size = -(-self.config.vocab_size // num_tiles)
        tiles = [
            make_linear(matrix.rows(start, start + size), None, self.precision, self.device, passes)
            for start in range(0, self.config.vocab_size, size)
        ]
        if self.precision == "int8":
            release(matrix.values)
        return tiles

    def _embed(self, ids: Tensor, positions: Tensor, table: Tensor) -> Tensor:
        rows = functional.embedding(ids, self.embedding).to(ACTIVATION_DTYPE) * self.embedding_scale
        # a literal <pad> has the zero position, as in transformers
        place = torch.where(ids == self.config.pad_id, self.config.pad_id, positions + POSITION_OFFSET)
        return rows + table[place]

    def set_num_threads(self, num_threads: int) -> None:
        """Threads of the passes that follow, on the CPU."""
        torch.set_num_threads(num_threads)
        if self.fused:
            self.fused.native.set_num_threads(num_threads)
        if self.passes:
            self.passes.set_num_threads(num_threads)

    def encode(self, batch: SourceBatch) -> Tensor | Quantized:
        """Packed sources → encoder output [num_tokens, d_model], as `write_cross_kv` takes it."""
        hidden = self._embed(batch.ids, batch.positions, self.encoder_positions)
        if self.passes:
            return self.passes.encode(hidden, batch)
        if self.fused:
            return self.fused.encode(self.encoder, hidden, batch)
        return self.encoder(hidden, batch)

    def write_cross_kv(self, encoded: Tensor | Quantized, slots: Tensor, cache: KVCache) -> None:
        """Project the encoder's output into each layer's cross KV at `slots` [num_tokens]."""
        if self.passes:
            assert isinstance(encoded, Quantized)
            self.passes.write_cross_kv(encoded, slots, cache)
        elif isinstance(encoded, Quantized):
            assert self.fused
            self.fused.write_cross_kv(self.decoder, encoded, slots, cache)
        else:
            self.decoder.write_cross_kv(encoded, slots, cache)

    def decode(self, rows: DecoderRows, cache: KVCache) -> Tensor:
        """Rows → decoder output [R, d_model], as `project_topk` takes it; writes each row's self KV."""
        hidden = self._embed(rows.tokens, rows.positions, self.decoder_positions)
        if self.passes:
            return self.passes.decode(hidden, rows, cache)
        if self.fused:
            return self.fused.decode(self.decoder, hidden, rows, cache)
        return self.decoder(hidden, rows, cache)

    def project_topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """[P, d_model] → k best (log-probabilities float32 [P, k], ids [P, k])."""
        if self.passes:
            return self.passes.project_topk(self.projection[0], hidden, k)
        if self.fused:
            return self.fused.project_topk(self.decoder.norm, self.projection, hidden, k)
        if self.precision in ("bfloat16", "float16"):
            return rescored_topk(self.projection, self.embedding, hidden, k)
        return project_topk(self.projection, hidden, k)


def _shared_embedding(weights: Weights, vocab_size: int, d_model: int) -> Tensor:
    """The one table that encoder, decoder and projection share (NLLB ties them)."""
    for name in EMBEDDING_NAMES:
        if name in weights:
            return weights.take(name, vocab_size, d_model)
    raise CheckpointError(f"{weights.path}: no embedding table; expected one of {', '.join(EMBEDDING_NAMES)}")


def _fit_passes(config: ModelConfig) -> bool:
    return fits(config.d_model, config.encoder_ffn) and fits(config.d_model, config.decoder_ffn)
