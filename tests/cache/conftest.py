"""What the cache's tests share: a link to a real Redis, and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nllbd.cache.cache import SegmentCache
from nllbd.cache.entry import Sealer
from nllbd.cache.remote import RemoteCache
from nllbd.metrics import Metrics
from nllbd.redis_client import RedisLink

UP_WITHIN_S = 30.0
SECRET = b"a secret of the tests"


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def link_to() -> AsyncIterator[Callable[..., Awaitable[RedisLink]]]:
    """Factory: `await link_to(server.url)` is a link that is up. Patient: this machine may be busy."""
    links: list[RedisLink] = []

    async def make(url: str, timeout_s: float = 2.0, **options: Any) -> RedisLink:
        links.append(RedisLink(url, timeout_s=timeout_s, **options))
        links[-1].start()
        assert await links[-1].wait_up(UP_WITHIN_S)
        return links[-1]

    yield make
    for link in links:
        await link.close()


@pytest.fixture
def make_cache(clock: Clock) -> Callable[..., SegmentCache]:
    """Factory: a cache as some daemon has it; with `link` it has Redis, too. Options are the cache's own."""

    def make(link: RedisLink | None = None, secret: bytes = SECRET, **options: Any) -> SegmentCache:
        sealer = Sealer(secret)
        metrics = options.pop("metrics", None) or Metrics()
        given: dict[str, Any] = {"code": "c", "model": "m", "runner": "model", "ttl_s": 60.0, "max_items": 100}
        remote = RemoteCache(link, sealer, metrics, clock=clock) if link else None
        return SegmentCache(
            **{**given, **options}, name_key=sealer.name_key, metrics=metrics, remote=remote, clock=clock
        )

    return make
