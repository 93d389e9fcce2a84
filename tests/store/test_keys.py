from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nllbd.errors import StoreUnavailable
from nllbd.principal import Scope
from nllbd.store import key_text, keys
from nllbd.store.keys import KeyCache
from nllbd.store.records import KeyChanges, KeyLimits, KeyRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Source:
    """A store whose answers are scripted."""

    keys: list[KeyRecord] = field(default_factory=list)
    revoked_sessions: set[str] = field(default_factory=set)
    generation: int = 0
    is_away: bool = False
    asked: list[int | None] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def key_changes(self, since: int | None) -> KeyChanges:
        self.asked.append(since)
        found = tuple(self.keys), frozenset(self.revoked_sessions)
        if self.gate:
            await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return KeyChanges(self.generation, *found, is_complete=since is None)

    def put(self, key: KeyRecord) -> None:
        self.generation += 1
        self.keys = [it for it in self.keys if it.id != key.id] + [key]


@dataclass
class Clock:
    now: float = 1000.0
    utc: datetime = NOW

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.utc += timedelta(seconds=seconds)


def make_key(**more: Any) -> tuple[KeyRecord, str]:
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    key = KeyRecord(key_id, "website", key_text.digest(text), frozenset({Scope.TRANSLATE}), NOW)
    return replace(key, **more), text


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def cache(clock: Clock, source: Source) -> KeyCache:
    cache = KeyCache(clock, lambda: clock.utc)
    cache.attach(source)
    assert await cache.refresh()
    return cache


async def test_a_known_key_costs_no_question(cache: KeyCache, source: Source, clock: Clock) -> None:
    key, text = make_key()
    source.put(key)
    await cache.refresh()
    source.asked.clear()
    clock.pass_s(1)
    assert await cache.find(text) == key
    assert cache.get(key.id) == key
    assert source.asked == []


async def test_a_key_that_was_made_a_moment_ago_is_found(cache: KeyCache, source: Source, clock: Clock) -> None:
    key, text = make_key()
    source.put(key)
    clock.pass_s(1)
    assert await cache.find(text) == key


async def test_what_is_no_key_is_not_looked_for(cache: KeyCache, source: Source, clock: Clock) -> None:
    source.asked.clear()
    clock.pass_s(1)
    assert await cache.find("hunter2") is None
    assert source.asked == []


async def test_many_unknown_keys_share_a_question(cache: KeyCache, source: Source, clock: Clock) -> None:
    source.asked.clear()
    clock.pass_s(1)
    unknown = [make_key()[1] for _ in range(500)]
    assert await asyncio.gather(*map(cache.find, unknown)) == [None] * 500
    assert len(source.asked) == 1


async def test_a_question_under_way_when_a_key_is_made_is_not_its_answer(
    cache: KeyCache, source: Source, clock: Clock, eventually: Callable[..., Any]
) -> None:
    source.gate = asyncio.Event()
    clock.pass_s(1)
    early = asyncio.create_task(cache.refresh())
    await eventually(lambda: len(source.asked) == 2)
    key, text = make_key()
    source.put(key)
    clock.pass_s(1)
    found = asyncio.create_task(cache.find(text))
    source.gate.set()
    assert await early
    assert await found == key


async def test_a_caller_that_leaves_does_not_take_the_question_along(
    cache: KeyCache, source: Source, clock: Clock, eventually: Callable[..., Any]
) -> None:
    source.gate = asyncio.Event()
    key, text = make_key()
    source.put(key)
    clock.pass_s(1)
    first, second = (asyncio.create_task(cache.find(text)) for _ in range(2))
    await eventually(lambda: len(source.asked) == 2)
    first.cancel()
    source.gate.set()
    assert await second == key


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}])
async def test_a_key_ends_with_the_next_poll(cache: KeyCache, source: Source, change: dict[str, Any]) -> None:
    key, text = make_key()
    source.put(key)
    await cache.refresh()
    source.put(replace(key, **change))
    await cache.refresh()
    assert cache.get(key.id) is None
    assert await cache.find(text) is None


async def test_a_key_expires_without_any_poll(cache: KeyCache, source: Source, clock: Clock) -> None:
    key, text = make_key(expires_at=NOW + timedelta(seconds=10))
    source.put(key)
    await cache.refresh()
    clock.pass_s(9.9)
    assert await cache.find(text) == key
    clock.pass_s(0.2)
    source.is_away = True
    assert await cache.find(text) is None


async def test_known_keys_go_on_while_the_database_is_away_for_a_while(
    cache: KeyCache, source: Source, clock: Clock
) -> None:
    key, text = make_key()
    source.put(key)
    await cache.refresh()
    source.is_away = True
    clock.pass_s(keys.MAX_STALE_S - 1)
    assert not await cache.refresh()
    assert not cache.is_current
    assert await cache.find(text) == key
    with pytest.raises(StoreUnavailable):
        await cache.find(make_key()[1])
    clock.pass_s(2)
    with pytest.raises(StoreUnavailable):
        await cache.find(text)
    with pytest.raises(StoreUnavailable):
        cache.is_session_revoked("s")
    source.is_away = False
    assert await cache.refresh()
    assert await cache.find(text) == key


async def test_after_an_outage_everything_is_read_anew(cache: KeyCache, source: Source) -> None:
    key, _ = make_key()
    source.put(key)
    await cache.refresh()
    source.is_away = True
    await cache.refresh()
    source.is_away, source.keys = False, []  # a backup was restored that lacks the key
    await cache.refresh()
    assert source.asked[-1] is None
    assert cache.get(key.id) is None


async def test_while_the_database_is_away_unknown_keys_do_not_queue_up(cache: KeyCache, source: Source) -> None:
    source.is_away = True
    await cache.refresh()
    source.asked.clear()
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await cache.find(make_key()[1])
    assert source.asked == []


async def test_before_anything_was_read_keys_are_unknown_not_wrong() -> None:
    cache = KeyCache()
    with pytest.raises(StoreUnavailable):
        await cache.find(make_key()[1])
    with pytest.raises(StoreUnavailable):
        cache.get("k")
    assert await cache.find("not a stored key") is None


async def test_whether_there_ever_was_a_key_is_known_once_it_was_read(
    cache: KeyCache, source: Source, clock: Clock
) -> None:
    assert KeyCache().has_held_keys is None
    assert cache.has_held_keys is False
    source.is_away = True
    await cache.refresh()
    assert cache.has_held_keys is False
    clock.pass_s(keys.MAX_STALE_S + 1)
    assert cache.has_held_keys is None  # by now somebody may have made one
    source.is_away = False
    source.put(make_key(revoked_at=NOW)[0])
    await cache.refresh()
    assert cache.has_held_keys is True
    source.is_away = True
    clock.pass_s(keys.MAX_STALE_S + 1)
    assert cache.has_held_keys is True


async def test_a_database_that_hangs_is_away(
    cache: KeyCache, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_REFRESH_S", 0.01)
    source.gate = asyncio.Event()
    assert not await cache.refresh()


async def test_revoked_sessions_are_known(cache: KeyCache, source: Source) -> None:
    assert not cache.is_session_revoked("s1")
    source.revoked_sessions = {"s1"}
    source.generation += 1
    await cache.refresh()
    assert cache.is_session_revoked("s1")


def test_a_rotated_key_stays_the_same_sender() -> None:
    key, _ = make_key(family="first", limits=KeyLimits(60, 5, 1000))
    principal = key.principal()
    assert (principal.id, principal.key_id, principal.name) == ("key:first", key.id, "website")
    assert (principal.rate_per_minute, principal.rate_burst, principal.monthly_characters) == (60, 5, 1000)


def test_polling_and_one_question_are_well_within_the_promise() -> None:
    """A revoked key stops within 5 s: a poll may just have begun, and the next may take its whole time."""
    assert keys.POLL_S + keys._REFRESH_S < 5.0
