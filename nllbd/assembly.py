"""What daemon, command line and library assemble alike out of the settings."""

from __future__ import annotations

from pathlib import Path

from nllbd.bridge.protocol import EngineConfig
from nllbd.config import Settings


def engine_config(settings: Settings, model_path: Path) -> EngineConfig:
    """The engine's part of the settings, for the checkpoint in `model_path`."""
    return EngineConfig(
        model_path=str(model_path),
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
        max_num_lanes=settings.max_num_lanes,
        max_encode_tokens=settings.max_encode_tokens,
        kv_cache_bytes=settings.kv_cache_bytes,
        max_num_beams=settings.max_num_beams,
        max_waiting_segments=settings.max_waiting_segments,
        max_waiting_tokens=settings.max_waiting_tokens,
        runner=settings.runner,
    )
