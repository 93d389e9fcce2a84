"""The same promises for SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from nllbd.errors import InternalError
from nllbd.http.dialects.deepl_glossaries import MAX_NAME, MAX_TERM
from nllbd.principal import Scope
from nllbd.sched.sequence import Priority
from nllbd.security.tokens import Token
from nllbd.store import key_text
from nllbd.store import store as store_module
from nllbd.store.names import clean_name
from nllbd.store.records import (
    AuditEvent,
    GlossaryRecord,
    KeyLimits,
    KeyRecord,
    SessionRecord,
    UsageBatch,
    UsageEntry,
)
from nllbd.store.store import Store

NOW = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
DAY = date(2026, 3, 1)
HOUR = timedelta(hours=1)


def make_key(name: str = "website", **more: object) -> KeyRecord:
    key_id = key_text.new_id()
    digest = key_text.digest(key_text.new_text(key_id))
    key = KeyRecord(key_id, name, digest, frozenset({Scope.TRANSLATE}), NOW)
    return replace(key, **more)  # type: ignore[arg-type]


def make_event(action: str = "key.created") -> AuditEvent:
    return AuditEvent(NOW, "cli:ada", action, "k1", {"name": "Wörterbuch 木"})


async def test_a_key_comes_back_as_it_went_in(store: Store) -> None:
    key = make_key(
        "Bücher 木 \N{GRINNING FACE}",
        scopes=frozenset(Scope),
        limits=KeyLimits(60, 5, 10**12, Priority.BULK),
        expires_at=NOW + HOUR,
        replaces="k0",
        family="k0",
    )
    await store.add_key(key, make_event())
    assert await store.find_key(key.digest) == key
    assert await store.find_key(b"\0" * 32) is None
    assert await store.list_keys() == [key]
    assert await store.list_audit() == [make_event()]


async def test_times_of_other_zones_are_the_same_moments(store: Store) -> None:
    from zoneinfo import ZoneInfo

    key = make_key(expires_at=NOW.astimezone(ZoneInfo("Asia/Tokyo")))
    await store.add_key(key)
    found = await store.find_key(key.digest)
    assert found is not None
    assert found.expires_at == NOW
    assert found.expires_at.tzinfo is UTC


async def test_a_taken_id_is_refused_and_nothing_of_it_stays(store: Store) -> None:
    key = make_key()
    await store.add_key(key)
    with pytest.raises(InternalError):
        await store.add_key(replace(make_key(), id=key.id), make_event())
    assert await store.list_audit() == []


async def test_revoking_a_key_ends_its_sessions_once(store: Store) -> None:
    key, other = make_key(), make_key()
    for each in (key, other):
        await store.add_key(each)
        await store.add_session(
            SessionRecord(f"s-{each.id}", each.id, each.account, each.scopes, NOW, datetime.now(UTC) + HOUR)
        )
    before = await store.key_changes(0)
    assert await store.revoke_key(key.id, NOW, make_event("key.revoked"))
    assert not await store.revoke_key(key.id, NOW + HOUR, make_event("key.revoked"))
    assert not await store.revoke_key("nobody", NOW)
    session = await store.find_session(f"s-{key.id}")
    assert session is not None
    assert session.revoked_at == NOW
    changes = await store.key_changes(before.generation)
    assert [(it.id, it.revoked_at) for it in changes.keys] == [(key.id, NOW)]
    assert changes.revoked_sessions == {f"s-{key.id}"}
    assert not changes.is_set_back
    assert len(await store.list_audit()) == 1


async def test_a_session_comes_back_and_is_revoked_by_itself(store: Store) -> None:
    session = SessionRecord("s1", None, "jwt:sub", frozenset({Scope.ADMIN}), NOW, datetime.now(UTC) + HOUR)
    await store.add_session(session)
    assert await store.find_session("s1") == session
    assert await store.find_session("s2") is None
    assert await store.revoke_session("s1", NOW)
    assert not await store.revoke_session("s1", NOW)
    assert (await store.key_changes(0)).revoked_sessions == {"s1"}


async def test_sessions_that_have_ended_are_not_told(store: Store) -> None:
    await store.add_session(SessionRecord("old", None, "x", frozenset(), NOW, datetime.now(UTC) - HOUR))
    await store.revoke_session("old", NOW)
    assert (await store.key_changes(0)).revoked_sessions == frozenset()


async def test_changes_are_told_once_and_in_order(store: Store) -> None:
    start = await store.key_changes(0)
    assert (start.keys, start.is_set_back) == ((), False)
    first, second = make_key(), make_key()
    await store.add_key(first)
    after_first = await store.key_changes(start.generation)
    await store.add_key(second)
    after_second = await store.key_changes(after_first.generation)
    assert (after_first.keys, after_second.keys) == ((first,), (second,))
    assert (await store.key_changes(after_second.generation)).keys == ()
    assert len((await store.key_changes(0)).keys) == 2


async def test_a_database_that_was_set_back_is_told(store: Store) -> None:
    await store.add_key(make_key())
    changes = await store.key_changes(1_000_000)
    assert (changes.is_set_back, changes.generation) == (True, 1)
    assert await store.key_generation() == 1


async def test_all_keys_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEYS_A_PAGE", 3)
    monkeypatch.setattr(store_module, "_IDS_A_PAGE", 3)
    made = {key.id: key for key in (make_key() for _ in range(8))}
    for key in made.values():
        await store.add_key(key)
        await store.add_session(
            SessionRecord(f"s-{key.id}", key.id, key.account, key.scopes, NOW, datetime.now(UTC) + HOUR)
        )
        await store.revoke_session(f"s-{key.id}", NOW)
    found: list[KeyRecord] = []
    while page := await store.key_page(found[-1].id if found else ""):
        assert len(page) <= 3
        found += page
    assert {key.id: key for key in found} == made
    assert len(found) == 8
    sessions: list[str] = []
    while ids := await store.revoked_sessions_page(sessions[-1] if sessions else ""):
        assert len(ids) <= 3
        sessions += ids
    assert sorted(sessions) == sorted(f"s-{key_id}" for key_id in made)
    assert len((await store.key_changes(0)).keys) == 8


async def test_keys_added_at_once_are_all_told(store: Store) -> None:
    """However the transactions overlap, what is seen at a generation is all there is up to it."""
    seen: set[str] = set()
    generation = 0
    keys = [make_key() for _ in range(12)]
    adding = asyncio.gather(*(store.add_key(key) for key in keys))
    while not adding.done():
        changes = await store.key_changes(generation)
        generation = changes.generation
        seen |= {key.id for key in changes.keys}
    await adding
    seen |= {key.id for key in (await store.key_changes(generation)).keys}
    assert seen == {key.id for key in keys}


async def test_replacing_a_key_shortens_the_old_one_never_lengthens(store: Store) -> None:
    endless, short = make_key(), make_key(expires_at=NOW + HOUR)
    for old in (endless, short):
        await store.add_key(old)
        assert await store.replace_key(old.id, NOW + 24 * HOUR, make_key(replaces=old.id, family=old.id))
    assert (await store.find_key(endless.digest)).expires_at == NOW + 24 * HOUR  # type: ignore[union-attr]
    assert (await store.find_key(short.digest)).expires_at == NOW + HOUR  # type: ignore[union-attr]
    assert not await store.replace_key("nobody", NOW, make_key())
    assert len(await store.list_keys()) == 4


async def test_a_batch_counts_once(store: Store) -> None:
    entries = (
        UsageEntry("b", DAY, 5, 1, 1, 3, 4),
        UsageEntry("a", DAY, 7, 1),
        UsageEntry("b", DAY, 10**10, 1),
        UsageEntry("b", DAY + timedelta(days=1), 1),
    )
    assert await store.book_usage(UsageBatch("one", entries))
    assert not await store.book_usage(UsageBatch("one", entries))
    assert await store.usage_of("b", DAY, DAY) == [UsageEntry("b", DAY, 10**10 + 5, 2, 1, 3, 4)]
    assert await store.book_usage(UsageBatch("two", entries))
    assert await store.usage_totals(DAY, DAY) == {"a": 14, "b": 2 * (10**10 + 5)}
    assert await store.usage_totals(DAY, DAY + timedelta(days=9), ["a", "nobody"]) == {"a": 14}
    assert await store.usage_totals(DAY, DAY, []) == {}
    assert await store.book_usage(UsageBatch("empty", ()))


async def test_batches_of_many_writers_add_up(store: Store) -> None:
    """The same accounts in other orders, at once: no deadlock, no loss, each batch sent twice."""
    names = [f"key:{number}" for number in range(20)]
    batches = [
        UsageBatch(f"batch{turn}", tuple(UsageEntry(name, DAY, 3) for name in names[turn:] + names[:turn]))
        for turn in range(8)
    ]
    booked = await asyncio.gather(*(store.book_usage(batch) for batch in batches + batches))
    assert sum(booked) == len(batches)
    assert await store.usage_totals(DAY, DAY) == dict.fromkeys(names, 3 * len(batches))


async def test_many_accounts_are_asked_for_in_parts(store: Store) -> None:
    names = [f"jwt:{number}" for number in range(1203)]
    await store.book_usage(UsageBatch("many", tuple(UsageEntry(name, DAY, 1) for name in names)))
    assert await store.usage_totals(DAY, DAY, names) == dict.fromkeys(names, 1)


async def test_the_audit_log_is_newest_first_and_added_once(store: Store) -> None:
    events = [make_event(f"e{number}") for number in range(5)]
    assert await store.add_audit(events, "b1")
    assert not await store.add_audit(events, "b1")
    assert [event.action for event in await store.list_audit(limit=2)] == ["e4", "e3"]
    assert await store.list_audit(action="e1") == [events[1]]
    assert await store.list_audit(since=NOW + HOUR) == []


async def test_glossaries_belong_to_their_account(store: Store) -> None:
    glossary = GlossaryRecord("g1", "key:a", "Recht", "deu_Latn", "eng_Latn", {"Vertrag": "contract"}, NOW)
    await store.add_glossary(glossary)
    assert await store.find_glossary("key:a", "g1") == glossary
    assert await store.find_glossary("key:b", "g1") is None
    assert await store.list_glossaries("key:b") == []
    assert not await store.delete_glossary("key:b", "g1")
    assert await store.list_glossaries("key:a") == [glossary]
    assert await store.delete_glossary("key:a", "g1")


async def test_the_longest_glossary_that_clients_may_make_fits(store: Store) -> None:
    claims = {"iss": "i" * 200, "sub": ":" * 200}
    terms = {"ä" * MAX_TERM: "\0 \N{GRINNING FACE}"}
    account = Token(claims, expires_at=0.0, is_session=False).account
    glossary = GlossaryRecord(key_text.new_id(), account, "木" * MAX_NAME, "deu_Latn", "eng_Latn", terms, NOW)
    await store.add_glossary(glossary)
    kept = replace(glossary, account=clean_name(account))
    assert await store.list_glossaries(account) == [kept]
    assert await store.find_glossary(account, glossary.id) == kept
    assert await store.list_glossaries(account + ":") == []
    assert await store.delete_glossary(account, glossary.id)


async def test_tidying_keeps_what_is_needed(store: Store) -> None:
    await store.book_usage(UsageBatch("batch", ()))
    await store.add_session(SessionRecord("old", None, "x", frozenset(), NOW, NOW))
    await store.add_audit([make_event()])
    await store.tidy(batches_before=NOW, sessions_before=NOW, audit_before=None)
    assert not await store.book_usage(UsageBatch("batch", ()))
    assert await store.find_session("old") is not None
    later = datetime.now(UTC) + HOUR
    await store.tidy(batches_before=later, sessions_before=later, audit_before=later)
    assert await store.book_usage(UsageBatch("batch", ()))
    assert await store.find_session("old") is None
    assert await store.list_audit() == []


async def test_what_a_later_version_wrote_is_read_as_the_safe_thing(store: Store) -> None:
    key = make_key()
    await store.add_key(key)
    async with store._database.write() as connection:
        await connection.execute(text("UPDATE keys SET scopes = 'translate,conquer', top_priority = 'warp'"))
        await connection.execute(text("ALTER TABLE keys ADD COLUMN colour VARCHAR(20)"))
    found = await store.find_key(key.digest)
    assert found is not None
    assert (found.scopes, found.limits.top_priority) == (frozenset({Scope.TRANSLATE}), Priority.BULK)
    await store.add_key(make_key())
