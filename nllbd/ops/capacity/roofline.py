"""What hardware that was not measured would do: an estimate from its arithmetic and memory, stated term by term. Pure.

A sentence of `source` tokens that becomes one of `target` tokens, found with `beams` beams, takes one pass through the
encoder and `target` steps of the decoder. A step for `lanes` hypotheses at once
  - multiplies every weight of the decoder and of the output projection with every lane: 2 · weights · lanes operations;
  - reads every weight once, and each lane's KV cache (its own tokens, and the source's for cross attention);
  - costs a fixed `step_s` beside that: launches, the beam's bookkeeping, the step to and from the scheduler.
The slower one of arithmetic and memory counts (they overlap), each at `efficiency` of what the data sheet says.
For processors the estimate starts from the measured rate instead: see `scaled`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a model that a sentence meets; counts of weights. The default is NLLB-200-distilled-600M."""

    d_model: int = 1024
    layers: int = 12
    ffn: int = 4096
    vocabulary: int = 256_206

    @property
    def encoder(self) -> int:
        return self.layers * (4 * self.d_model**2 + 2 * self.d_model * self.ffn)

    @property
    def decoder(self) -> int:
        return self.layers * (8 * self.d_model**2 + 2 * self.d_model * self.ffn)

    @property
    def projection(self) -> int:
        return self.vocabulary * self.d_model

    def kv_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        """Keys and values of one lane, all layers."""
        return 2 * self.layers * self.d_model * tokens * bytes_per_value


@dataclass(frozen=True, slots=True)
class Sentences:
    """As in `bench/results/offline-600M-*.json`: 128 sentences, 13.7 source and 14 target tokens each on average."""

    source: float = 13.7
    target: float = 14.0
    beams: int = 4


@dataclass(frozen=True, slots=True)
class Device:
    """Of a data sheet: dense float16 operations a second (accumulated in float32), bytes a second, bytes of memory."""

    name: str
    flops: float
    bandwidth: float
    memory: float


DEVICES = (
    Device("GeForce RTX 4060, 8 GB", 60e12, 272e9, 8e9),
    Device("GeForce RTX 4080, 16 GB", 97.5e12, 717e9, 16e9),
    Device("A100, 40 GB", 312e12, 1555e9, 40e9),
)
EFFICIENCY = 0.4
STEP_S = 0.003
LANES = 512


def sentences_per_s(
    device: Device,
    shape: Shape | None = None,
    mix: Sentences | None = None,
    lanes: int = LANES,
    efficiency: float = EFFICIENCY,
    step_s: float = STEP_S,
) -> float:
    """Sentences a second of a full batch, computed."""
    shape, mix = shape or Shape(), mix or Sentences()
    weights = shape.decoder + shape.projection
    arithmetic = 2.0 * weights * lanes / (efficiency * device.flops)
    kv = lanes * shape.kv_bytes(round(mix.source + mix.target / 2))
    memory = (2.0 * weights + kv) / (efficiency * device.bandwidth)
    step = max(arithmetic, memory) + step_s
    encode = 2.0 * shape.encoder * mix.source / (efficiency * device.flops)
    together = lanes / mix.beams
    return together / (mix.target * step + together * encode)


def scaled(measured: float, cores_measured: int, cores: int, bandwidth: float, shape: Shape | None = None) -> float:
    """Sentences a second on more cores of the same kind: in proportion, less a tenth for every doubling, and no more
    than memory allows when every step reads all weights in int8 for 48 sentences at once.
    """
    shape = shape or Shape()
    rate, at = measured, cores_measured
    while at < cores:
        rate, at = rate * 2 * 0.9, at * 2
    steps_per_s = EFFICIENCY * bandwidth / (shape.decoder + shape.projection)
    return min(rate * cores / at, steps_per_s * 48 / Sentences().target)
