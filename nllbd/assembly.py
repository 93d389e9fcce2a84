"""What daemon, command line and library assemble alike out of the settings."""

from __future__ import annotations

from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings
from nllbd.job import default_params, max_segment_tokens

_FRAME_TOKENS = 2  # language code and `</s>` around every source


def engine_config(settings: Settings, checkpoint: Checkpoint) -> EngineConfig:
    """The engine's part of the settings, and what requests without wishes will need of it."""
    default = default_params(settings, checkpoint)
    return EngineConfig(
        model_path=str(checkpoint.path),
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
        max_num_lanes=settings.max_num_lanes,
        max_encode_tokens=settings.max_encode_tokens,
        kv_cache_bytes=settings.kv_cache_bytes,
        max_num_beams=settings.max_num_beams,
        default_source_tokens=max_segment_tokens(settings, checkpoint) + _FRAME_TOKENS,
        default_lane_tokens=(default.max_length - 1) * default.num_beams,
        max_waiting_segments=settings.max_waiting_segments,
        max_waiting_tokens=settings.max_waiting_tokens,
        runner=settings.runner,
    )
