"""Both caches as one: the process's own is asked first and filled from Redis. Hits, misses and times are counted here.

One tenant never sees, and cannot tell by the clock, what another had translated: the tenant is part of every name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from nllbd import metrics as m
from nllbd.cache.entry import Entry
from nllbd.cache.key import Namer, Origin, Recipe, make_namer
from nllbd.cache.memory import MemoryCache
from nllbd.cache.remote import RemoteCache
from nllbd.metrics import Metrics

#: Most jobs are asked for alike: their namers are made once.
_MAX_NAMERS = 256


class SegmentCache:
    """Translations by name. One event loop. `ttl_s` = 0 turns it off.

    `code` and `model` are fingerprints, `runner` what the engine runs: with device and dtype they name the origin.
    `clock` tells Unix time in seconds: entries of several hosts expire by it.
    """

    def __init__(
        self,
        *,
        name_key: bytes,
        code: str,
        model: str,
        runner: str,
        ttl_s: float,
        max_items: int,
        metrics: Metrics,
        remote: RemoteCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name_key = name_key
        self._code = code
        self._model = model
        self._runner = runner
        self._ttl_s = ttl_s
        self._memory = MemoryCache(max_items)
        self._metrics = metrics
        self._remote = remote
        self._clock = clock
        self._namers: dict[tuple[str, str, Recipe], Namer] = {}

    @property
    def is_on(self) -> bool:
        return self._ttl_s > 0

    def apply(self, ttl_s: float, max_items: int) -> None:
        """Take over settings that changed live. What is kept keeps its time, unless the cache is now off."""
        self._ttl_s = ttl_s
        self._memory.resize(max_items)
        if not self.is_on:
            self._memory.clear()
        self._tell_size()

    def namer(self, device: str, dtype: str, recipe: Recipe) -> Namer:
        """Names for the segments of one job, on an engine of such a device and dtype."""
        known = self._namers.get((device, dtype, recipe))
        if known is not None:
            return known
        origin = Origin(self._code, self._model, self._runner, device.partition(":")[0], dtype)
        namer = make_namer(self._name_key, origin, recipe)
        if len(self._namers) >= _MAX_NAMERS:
            self._namers.clear()
        self._namers[device, dtype, recipe] = namer
        return namer

    async def find(self, names: Sequence[bytes]) -> dict[bytes, Entry]:
        """What is known of `names`. Never raises, and waits for Redis no longer than remote.LOOKUP_S."""
        began = time.perf_counter()
        now = self._clock()
        found = {name: entry for name in names if (entry := self._memory.get(name, now)) is not None}
        self._count("memory", len(found))
        if self._remote is not None and not self._remote.is_away and len(found) < len(names):
            found |= await self._find_remote(self._remote, [name for name in names if name not in found])
        self._count("miss", len(names) - len(found))
        self._metrics.observe(m.CACHE_LOOKUP_TIME, time.perf_counter() - began)
        return found

    def peek(self, name: bytes) -> Entry | None:
        """What the process itself knows now, for whoever missed a moment ago."""
        return self._memory.get(name, self._clock())

    def keep(self, name: bytes, entry: Entry) -> None:
        """Keep a translation for `ttl_s`, here at once and in Redis soon. Returns at once."""
        if not self.is_on:
            return
        expires_at = self._clock() + self._ttl_s
        self._memory.put(name, entry, expires_at)
        if self._remote is not None:
            self._remote.keep(name, entry, expires_at)
        self._tell_size()

    async def close(self) -> None:
        if self._remote is not None:
            await self._remote.close()

    async def _find_remote(self, remote: RemoteCache, names: Sequence[bytes]) -> dict[bytes, Entry]:
        found = await remote.find(names)
        self._count("redis", len(found))
        for name, item in found.items():
            self._memory.put(name, item.entry, item.expires_at)
        self._tell_size()
        return {name: item.entry for name, item in found.items()}

    def _count(self, result: str, number: int) -> None:
        if number:
            self._metrics.add(m.CACHE_REQUESTS, number, result=result)

    def _tell_size(self) -> None:
        self._metrics.set(m.CACHE_ITEMS, len(self._memory))
        self._metrics.set(m.CACHE_BYTES, self._memory.num_bytes)
