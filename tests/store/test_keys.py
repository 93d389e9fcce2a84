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
    asked: list[int] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    page_gate: asyncio.Event | None = None
    page_size: int = 3
    changed_at: dict[str, int] = field(default_factory=dict)

    async def key_generation(self) -> int:
        return await self._answer(self.generation)

    async def key_changes(self, since: int) -> KeyChanges:
        self.asked.append(since)
        if since > self.generation:
            return await self._answer(KeyChanges(self.generation, (), frozenset(), is_set_back=True))
        changed = tuple(key for key in self.keys if self.changed_at.get(key.id, 0) > since)
        return await self._answer(KeyChanges(self.generation, changed, frozenset(self.revoked_sessions)))

    async def key_page(self, after_id: str) -> tuple[KeyRecord, ...]:
        self.pages.append(after_id)
        found = sorted((key for key in self.keys if key.id > after_id), key=lambda key: key.id)[: self.page_size]
        if self.page_gate is not None:
            await self.page_gate.wait()
        return await self._answer(tuple(found))

    async def revoked_sessions_page(self, after_id: str) -> tuple[str, ...]:
        return await self._answer(tuple(sorted(it for it in self.revoked_sessions if it > after_id)[: self.page_size]))

    async def _answer(self, answer: Any) -> Any:
        if self.gate:
            await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return answer

    def put(self, key: KeyRecord) -> None:
        self.generation += 1
        self.changed_at[key.id] = self.generation
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


async def test_after_an_outage_everything_is_read_anew(
    cache: KeyCache, source: Source, eventually: Callable[..., Any]
) -> None:
    key, _ = make_key()
    source.put(key)
    await cache.refresh()
    source.is_away = True
    await cache.refresh()
    source.is_away, source.keys = False, []  # a backup was restored that lacks the key
    await cache.refresh()
    await eventually(lambda: cache.get(key.id) is None)


@pytest.mark.parametrize("how", ["set back", "after a while"])
async def test_a_restored_database_is_read_anew(
    cache: KeyCache, source: Source, clock: Clock, how: str, eventually: Callable[..., Any]
) -> None:
    """It counts its changes from an earlier state on, with luck past where it was."""
    gone, back = make_key()[0], make_key()[0]
    source.put(gone)
    await cache.refresh()
    source.keys, source.generation = [back], 0 if how == "set back" else source.generation
    if how == "after a while":
        clock.pass_s(keys.FULL_EVERY_S)
    assert await cache.refresh()
    await eventually(lambda: cache.get(gone.id) is None)
    assert cache.get(back.id) == back
    changed = replace(back, name="renamed")
    source.put(changed)
    await cache.refresh()
    assert cache.get(back.id) == changed


async def test_what_changes_while_all_are_looked_at_is_newer(
    cache: KeyCache, source: Source, clock: Clock, eventually: Callable[..., Any]
) -> None:
    kept = [make_key()[0] for _ in range(7)]
    for key in kept:
        source.put(key)
    await cache.refresh()
    clock.pass_s(keys.FULL_EVERY_S)
    source.page_gate = asyncio.Event()
    source.pages.clear()
    await cache.refresh()
    await eventually(lambda: source.pages == [""])  # the first page was read, and is on its way
    first, made = min(kept, key=lambda key: key.id), make_key()[0]
    source.put(replace(first, revoked_at=NOW))
    source.put(made)
    source.revoked_sessions = {"s1"}
    await cache.refresh()  # a poll does not wait for the pages
    assert cache.get(first.id) is None
    source.keys.remove(made)  # nor does a page that lacks it make the poll's key go away
    source.page_gate.set()
    await eventually(lambda: len(source.pages) >= 4)
    await cache.refresh()
    assert cache.get(first.id) is None
    assert cache.get(made.id) == made
    assert cache.is_session_revoked("s1")
    assert all(cache.get(key.id) == key for key in kept if key.id != first.id)


async def test_a_look_at_all_that_fails_is_tried_again_and_keeps_what_is_known(
    cache: KeyCache, source: Source, clock: Clock, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = make_key()[0], make_key()[0]
    source.put(gone)
    source.put(kept)
    await cache.refresh()
    source.keys.remove(gone)
    page = source.key_page
    asked = 0

    async def damaged(after_id: str) -> tuple[KeyRecord, ...]:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("malformed")

    monkeypatch.setattr(source, "key_page", damaged)
    clock.pass_s(keys.FULL_EVERY_S)
    for _ in range(5):
        assert await cache.refresh()
        await asyncio.sleep(0.01)
    assert (asked, cache.is_current) == (1, True)
    assert (cache.get(kept.id), cache.get(gone.id)) == (kept, gone)
    monkeypatch.setattr(source, "key_page", page)
    clock.pass_s(keys._RETRY_S)
    assert await cache.refresh()
    await eventually(lambda: cache.get(gone.id) is None)


async def test_a_clock_that_was_wrong_for_a_while_leaves_nothing_behind(
    cache: KeyCache, source: Source, clock: Clock
) -> None:
    """The host's clock jumps a year ahead, everything is looked at, and it is set right again."""
    key, text = make_key(expires_at=NOW + timedelta(days=30))
    revoked, _ = make_key(revoked_at=NOW + timedelta(days=400))  # by a host whose clock is wrong
    source.put(key)
    source.put(revoked)
    await cache.refresh()
    assert await cache.find(text) == key
    assert cache.get(revoked.id) is None
    clock.utc += timedelta(days=400)
    clock.now += keys.FULL_EVERY_S
    await cache.refresh()
    assert await cache.find(text) is None
    clock.utc -= timedelta(days=400)
    clock.now += 1
    assert await cache.find(text) == key


async def test_however_many_keys_there_are_the_loop_turns(source: Source, clock: Clock) -> None:
    """No time is measured here: what is asked is that nothing goes through all keys without a pause."""
    source.page_size = 200
    for _ in range(5000):
        source.put(make_key()[0])
    cache = KeyCache(clock, lambda: clock.utc)
    cache.attach(source)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    assert await cache.refresh()
    assert cache.num_keys == 5000
    assert turns >= 5000 / 200 + 5000 / keys._SLICE
    counting.cancel()


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
    source.revoked_sessions = {"s2"}  # the first one has ended by itself
    fresh = KeyCache()
    fresh.attach(source)
    await fresh.refresh()
    assert not fresh.is_session_revoked("s1")
    assert fresh.is_session_revoked("s2")


def test_a_rotated_key_stays_the_same_sender() -> None:
    key, _ = make_key(family="first", limits=KeyLimits(60, 5, 1000))
    principal = key.principal()
    assert (principal.id, principal.key_id, principal.name) == ("key:first", key.id, "website")
    assert (principal.rate_per_minute, principal.rate_burst, principal.monthly_characters) == (60, 5, 1000)


def test_polling_and_one_question_are_well_within_the_promise() -> None:
    """A revoked key stops within 5 s: a poll may just have begun, and the next may take its whole time."""
    assert keys.POLL_S + keys._REFRESH_S < 5.0
