from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from nllbd import accounts as accounts_module
from nllbd.accounts import Accounts, Retention, store_url
from nllbd.config import Settings
from nllbd.errors import QuotaExceeded, StoreUnavailable
from nllbd.store import key_text
from nllbd.store.records import KeyLimits, UsageEntry
from nllbd.store.store import Store
from nllbd.store.usage import utc_today
from tests.store.test_keys import make_key

Start = Callable[..., Accounts]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Factory of started accounts that are closed in the end; their timers are short."""
    monkeypatch.setattr(accounts_module, "FLUSH_S", 0.02)
    monkeypatch.setattr(accounts_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(accounts_module, "_MAX_RETRY_S", 0.02)
    started: list[Accounts] = []

    def start_one(url: str, folder: Path | None = None) -> Accounts:
        started.append(Accounts(url, folder))
        started[-1].start()
        return started[-1]

    yield start_one
    for each in started:
        await each.close()


def sqlite_url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'store.db'}"


async def test_once_settled_keys_and_totals_are_known(tmp_path: Path, start: Start) -> None:
    store = await Store.open(sqlite_url(tmp_path))
    key, text = make_key()
    await store.add_key(key)
    first = start(sqlite_url(tmp_path), tmp_path / "usage")
    first.usage.book(UsageEntry(key.account, utc_today(), 5, 1))
    await first.wait_settled()
    assert first.keys.num_keys == 1
    assert await first.keys.find(text) == key
    await first.close()
    second = start(sqlite_url(tmp_path), tmp_path / "usage")
    await second.wait_settled()
    assert second.usage.used_this_month(key.account) == 5
    assert [event.action for event in await store.list_audit()] == ["daemon.stopped", "daemon.started"]
    await store.close()


async def test_figures_reach_the_database_on_a_timer(
    tmp_path: Path, start: Start, eventually: Callable[..., Awaitable[None]]
) -> None:
    accounts = start(sqlite_url(tmp_path), tmp_path / "usage")
    accounts.usage.book(UsageEntry("key:a", utc_today(), 5, 1))
    accounts.audit.record("token.issued")
    await accounts.wait_settled()
    await eventually(lambda: accounts.usage.num_unflushed == 0)
    assert await accounts.store.usage_totals(utc_today(), utc_today()) == {"key:a": 5}


async def test_a_database_that_comes_late_is_found(
    tmp_path: Path, start: Start, eventually: Callable[..., Awaitable[None]]
) -> None:
    folder = tmp_path / "later"
    folder.touch()  # where the database's folder should be
    accounts = start(sqlite_url(folder), tmp_path / "usage")
    await accounts.wait_settled()
    key_id = key_text.new_id()
    with pytest.raises(StoreUnavailable):
        await accounts.keys.find(key_text.new_text(key_id))
    with pytest.raises(StoreUnavailable):
        _ = accounts.store
    accounts.usage.book(UsageEntry("key:a", utc_today(), 5, 1))
    folder.unlink()
    await eventually(lambda: accounts.is_open and accounts.keys.is_current)
    assert await accounts.keys.find(key_text.new_text(key_id)) is None
    await eventually(lambda: accounts.usage.num_unflushed == 0)


async def test_hosts_that_share_a_database_share_quotas(
    tmp_path: Path, start: Start, eventually: Callable[..., Awaitable[None]]
) -> None:
    """One host never saw the account before; the other has just used up its month."""
    store = await Store.open(sqlite_url(tmp_path))
    key, _ = make_key(limits=KeyLimits(monthly_characters=1000))
    await store.add_key(key)
    await store.close()
    first, second = start(sqlite_url(tmp_path), tmp_path / "a"), start(sqlite_url(tmp_path), tmp_path / "b")
    await first.wait_settled()
    await second.wait_settled()
    with second.usage.hold(key.account, 1000, 1000):
        second.usage.book(UsageEntry(key.account, utc_today(), 1000, 1))
    await eventually(lambda: first.usage.used_this_month(key.account) == 1000)
    with pytest.raises(QuotaExceeded), first.usage.hold(key.account, 1, 1000):
        pass


async def test_without_a_store_memory_serves(start: Start) -> None:
    accounts = Accounts()
    accounts.start()
    await accounts.wait_settled()
    accounts.usage.book(UsageEntry("key:a", utc_today(), 5, 1))
    assert accounts.usage.used_this_month("key:a") == 5
    await accounts.close()


async def test_a_second_start_changes_nothing(tmp_path: Path, start: Start) -> None:
    accounts = start(sqlite_url(tmp_path))
    accounts.start()
    await accounts.wait_settled()
    await accounts.close()
    store = await Store.open(sqlite_url(tmp_path))
    assert [event.action for event in await store.list_audit()] == ["daemon.stopped", "daemon.started"]
    await store.close()


async def test_a_state_folder_that_cannot_be_written_costs_the_journal_only(tmp_path: Path, start: Start) -> None:
    (tmp_path / "file").touch()
    accounts = start(sqlite_url(tmp_path), tmp_path / "file" / "usage")
    accounts.usage.book(UsageEntry("key:a", utc_today(), 5, 1))
    await accounts.wait_settled()
    await accounts.close()
    store = await Store.open(sqlite_url(tmp_path))
    assert await store.usage_totals(utc_today(), utc_today()) == {"key:a": 5}
    await store.close()


async def test_loading_the_store_leaves_the_loop_turning(tmp_path: Path, start: Start) -> None:
    """Its imports and its first start run in threads: nobody waits for them longer than for a switch of threads."""
    accounts = start(sqlite_url(tmp_path))
    longest, previous = 0.0, asyncio.get_running_loop().time()
    while not accounts.is_open:
        await asyncio.sleep(0.001)
        now = asyncio.get_running_loop().time()
        longest, previous = max(longest, now - previous), now
    assert longest < 1.0


def test_retention_never_touches_the_running_month() -> None:
    now = datetime(2026, 3, 20, tzinfo=UTC)
    assert Retention().audit_before(now) is None
    assert Retention().usage_before(now) is None
    assert Retention(audit_days=1).audit_before(now) == datetime(2026, 3, 19, tzinfo=UTC)
    assert Retention(usage_days=1).usage_before(now) == date(2026, 3, 1)
    assert Retention(usage_days=60).usage_before(now) == date(2026, 1, 19)


def test_where_the_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert store_url(Settings()) == f"sqlite+aiosqlite:///{tmp_path}/nllbd.db"
    given: Any = "postgresql+asyncpg://nllbd@db/nllbd"
    assert store_url(Settings(database_url=given)) == given
