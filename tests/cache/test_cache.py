"""Both caches as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nllbd import metrics as m
from nllbd.cache.entry import Entry
from nllbd.cache.key import Recipe
from nllbd.metrics import Metrics
from nllbd.sched.sequence import SearchParams

ONE, TWO = b"1" * 32, b"2" * 32
ENTRY = Entry(("eins", "ein"), ("truncated",))
Make = Callable[..., Any]


async def test_what_is_kept_is_found(make_cache: Make) -> None:
    metrics = Metrics()
    cache = make_cache(metrics=metrics)
    assert await cache.find((ONE, TWO)) == {}
    cache.keep(ONE, ENTRY)
    assert await cache.find((ONE, TWO)) == {ONE: ENTRY}
    assert cache.peek(ONE) == ENTRY
    assert metrics.value(m.CACHE_REQUESTS, result="memory") == 1
    assert metrics.value(m.CACHE_REQUESTS, result="miss") == 3
    assert metrics.value(m.CACHE_ITEMS) == 1
    assert metrics.value(m.CACHE_BYTES) > 0
    assert metrics.value(m.CACHE_LOOKUP_TIME) == 2


async def test_it_is_kept_for_its_time(make_cache: Make, clock: Any) -> None:
    cache = make_cache(ttl_s=60.0)
    cache.keep(ONE, ENTRY)
    clock.now += 59.0
    assert await cache.find((ONE,))
    clock.now += 2.0
    assert not await cache.find((ONE,))


async def test_off_is_off(make_cache: Make) -> None:
    cache = make_cache()
    cache.keep(ONE, ENTRY)
    cache.apply(ttl_s=0.0, max_items=100)
    assert not cache.is_on
    assert cache.peek(ONE) is None
    cache.keep(ONE, ENTRY)
    cache.apply(ttl_s=60.0, max_items=100)
    assert cache.peek(ONE) is None


async def test_a_smaller_size_takes_effect_at_once(make_cache: Make) -> None:
    cache = make_cache(max_items=10)
    for number in range(10):
        cache.keep(bytes([number]) * 32, ENTRY)
    cache.apply(ttl_s=60.0, max_items=3)
    assert [cache.peek(bytes([number]) * 32) is not None for number in range(10)] == [False] * 7 + [True] * 3


async def test_what_redis_had_is_in_the_process_from_then_on(
    make_cache: Make, start_redis: Any, link_to: Any, clock: Any, eventually: Any
) -> None:
    server = start_redis()
    metrics = Metrics()
    one, other = make_cache(await link_to(server.url), metrics=metrics), make_cache(await link_to(server.url))
    one.keep(ONE, ENTRY)
    await eventually(lambda: metrics.value(m.CACHE_WRITES, result="written") == 1)
    clock.now += 30.0
    assert await other.find((ONE, TWO)) == {ONE: ENTRY}
    server.kill()
    assert await other.find((ONE,)) == {ONE: ENTRY}
    clock.now += 31.0
    assert await other.find((ONE,)) == {}, "it lives no longer here than in Redis"


async def test_without_room_in_the_process_there_is_redis(
    make_cache: Make, start_redis: Any, link_to: Any, eventually: Any
) -> None:
    metrics = Metrics()
    cache = make_cache(await link_to(start_redis().url), metrics=metrics, max_items=0)
    cache.keep(ONE, ENTRY)
    await eventually(lambda: metrics.value(m.CACHE_WRITES, result="written") == 1)
    assert await cache.find((ONE,)) == {ONE: ENTRY}
    assert metrics.value(m.CACHE_REQUESTS, result="redis") == 1
    await cache.close()


async def test_names_tell_the_kind_of_device_but_not_its_number(make_cache: Make) -> None:
    cache = make_cache()
    recipe = Recipe("fra_Latn", SearchParams(), 8)
    names = {
        device: cache.namer(device, "float16", recipe)("eng_Latn", "Hi.") for device in ("cuda:0", "cuda:1", "cpu")
    }
    assert names["cuda:0"] == names["cuda:1"] != names["cpu"]
    assert names["cpu"] != cache.namer("cpu", "int8", recipe)("eng_Latn", "Hi.")
