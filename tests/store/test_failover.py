"""What is booked through a failover adds up: a real primary with a synchronous standby, killed at the worst moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from nllbd.errors import StoreUnavailable
from nllbd.store import database
from nllbd.store.journal import Journal
from nllbd.store.keys import KeyCache
from nllbd.store.records import UsageBatch, UsageEntry
from nllbd.store.store import Store
from nllbd.store.usage import UsageMeter
from tests.store.postgres import Cluster, Proxy, Server, url_of
from tests.store.test_keys import make_key

DAY = date(2026, 3, 1)


def entry(characters: int, account: str = "key:a") -> UsageEntry:
    return UsageEntry(account, DAY, characters, 1)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy(0)
    await proxy.start()
    yield proxy
    await proxy.close()


async def flush_until_done(meter: UsageMeter, store: Store) -> int:
    """How many tries failed before one succeeded."""
    for attempt in range(100):
        try:
            await meter.flush(store)
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            return attempt
    raise AssertionError("usage never reached the database")


async def test_the_primary_dies_between_commit_and_its_answer(
    own_cluster: Cluster, proxy: Proxy, tmp_path: Path
) -> None:
    primary = own_cluster.make_primary()
    replica = own_cluster.make_replica(primary)
    proxy.target = primary.port
    store = await Store.open(url_of(proxy.port))
    key, text = make_key()
    await store.add_key(key)
    cache = KeyCache()
    cache.attach(store)
    assert await cache.refresh()
    journal, _ = Journal.open(tmp_path)
    meter = UsageMeter(journal, today=lambda: DAY)
    meter.book(entry(1000))
    await meter.flush(store)

    meter.book(entry(200))
    meter.book(entry(7, "key:b"))
    proxy.on_commit = primary.kill
    with pytest.raises(StoreUnavailable):
        await meter.flush(store)
    assert proxy.num_dropped == 1
    assert replica.query("select sum(characters) from usage") == "1207", "the test means: committed, unanswered"
    meter.book(entry(30))
    with pytest.raises(StoreUnavailable):
        await meter.flush(store)
    assert await cache.find(text) == key, "known keys go on working"

    await asyncio.to_thread(replica.promote)
    await asyncio.to_thread(replica.query, "alter system reset synchronous_standby_names", "select pg_reload_conf()")
    proxy.target = replica.port
    await flush_until_done(meter, store)
    assert replica.query("select account, characters, requests from usage order by 1") == "key:a|1230|3\nkey:b|7|1"
    assert meter.used_this_month("key:a") == 1230
    assert await cache.refresh()
    await meter.close(store)
    await store.close()


async def test_a_commit_that_the_standby_never_saw_is_not_taken_for_done(
    own_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby hangs: the primary commits, waits, and is cancelled. Its row must not make the next try a success."""
    monkeypatch.setattr(database, "OPERATION_S", 1.0)
    primary = own_cluster.make_primary()
    replica = own_cluster.make_replica(primary)
    store = await Store.open(primary.url)
    batch = UsageBatch("b1", (entry(5),))
    replica.freeze()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.book_usage(batch)
    finally:
        replica.thaw()
    for _ in range(50):
        try:
            assert not await store.book_usage(batch)
            break
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    assert replica.query("select sum(characters) from usage") == "5"
    await store.close()


async def test_a_frozen_server_costs_a_time_limit_and_no_more(
    postgres: Server, postgres_url: str, open_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "OPERATION_S", 0.5)
    store = await open_store(postgres_url)
    loop = asyncio.get_running_loop()
    postgres.freeze()
    try:
        began = loop.time()
        with pytest.raises(StoreUnavailable):
            await store.book_usage(UsageBatch("b1", (entry(5),)))
        assert loop.time() - began < 10
    finally:
        postgres.thaw()
    for _ in range(100):
        try:
            await store.book_usage(UsageBatch("b1", (entry(5),)))
            break
        except StoreUnavailable:
            await asyncio.sleep(0.05)
    assert await store.usage_totals(DAY, DAY) == {"key:a": 5}


async def test_a_restart_of_the_server_is_forgotten_by_the_next_question(own_cluster: Cluster) -> None:
    primary = own_cluster.make_primary()
    store = await Store.open(primary.url)
    key, _ = make_key()
    await store.add_key(key)
    primary.stop("fast")
    with pytest.raises(StoreUnavailable):
        await store.find_key(key.digest)
    primary.start()
    assert await store.find_key(key.digest) == key
    await store.close()


async def test_a_key_revoked_through_one_host_stops_on_another(store_url: str, open_store: Callable[..., Any]) -> None:
    here, there = await open_store(store_url), await open_store(store_url)
    key, text = make_key()
    await here.add_key(key)
    cache = KeyCache()
    cache.attach(there)
    assert await cache.find(text) is not None
    running = asyncio.create_task(cache.run())
    loop = asyncio.get_running_loop()
    await here.revoke_key(key.id, datetime.now(UTC))
    revoked_at = loop.time()
    async with asyncio.timeout_at(revoked_at + 5.0):
        while await cache.find(text) is not None:  # noqa: ASYNC110 - what a client would do
            await asyncio.sleep(0.02)
    running.cancel()
