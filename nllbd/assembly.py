"""What daemon, command line and library assemble alike out of the settings."""

from __future__ import annotations

import secrets

from nllbd.bridge.protocol import EngineConfig
from nllbd.cache.cache import SegmentCache
from nllbd.cache.code import code_fingerprint
from nllbd.cache.entry import Sealer
from nllbd.cache.remote import RemoteCache
from nllbd.cache.secret import load_secret
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings, state_folder
from nllbd.errors import ConfigError
from nllbd.job import default_params, max_segment_tokens
from nllbd.metrics import Metrics
from nllbd.redis_client import RedisLink

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


def redis_link(settings: Settings, metrics: Metrics) -> RedisLink | None:
    """The link to Redis, for the cache, and for rate limits that have no Redis of their own; None where none is set.

    Start it, and close it at the end. Raises ConfigError for a URL that means nothing; whether anybody answers there is
    not looked at.
    """
    return _link(settings, "redis_url", settings.redis_url, "redis", metrics)


def rate_limit_link(settings: Settings, metrics: Metrics) -> RedisLink | None:
    """The link to the rate limits' own Redis; None where they share the cache's. Otherwise as `redis_link`."""
    return _link(settings, "rate_limit_redis_url", settings.rate_limit_redis_url, "rates", metrics)


def _link(settings: Settings, setting: str, url: str | None, name: str, metrics: Metrics) -> RedisLink | None:
    if url is None:
        return None
    try:
        return RedisLink(url, name, metrics)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{settings.origin(setting)}: {setting} is no URL of a Redis server; "
            "expected such as redis://:password@host:6379/0",
            field=setting,
        ) from None


def segment_cache(
    settings: Settings, checkpoint: Checkpoint, metrics: Metrics, link: RedisLink | None = None
) -> SegmentCache:
    """The cache of translated segments. Reads our own sources, and the state folder if Redis is used: blocking."""
    sealer = Sealer(load_secret(settings.cache_secret, state_folder()) if link else secrets.token_bytes(32))
    return SegmentCache(
        name_key=sealer.name_key,
        code=code_fingerprint(),
        model=checkpoint.fingerprint,
        runner=settings.runner,
        ttl_s=settings.cache_ttl_s,
        max_items=settings.cache_max_items,
        metrics=metrics,
        remote=RemoteCache(link, sealer, metrics) if link else None,
    )
