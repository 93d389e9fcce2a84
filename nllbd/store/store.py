"""What outlives the daemon, behind plain records: keys, sessions, usage, audit log, glossaries. SQLite or PostgreSQL.

The translation path never comes here: it reads `KeyCache` and `UsageMeter`. Importing this imports SQLAlchemy; so it
is imported late, and in a thread (`accounts.py`). Every method raises StoreUnavailable when the database does not
answer in time; whether a write has happened is then unknown, and each may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Insert, Select, Table, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from nllbd.store import rows, tables
from nllbd.store.database import Database
from nllbd.store.names import clean_name
from nllbd.store.records import (
    AuditEvent,
    GlossaryRecord,
    KeyChanges,
    KeyRecord,
    SessionRecord,
    UsageBatch,
    UsageEntry,
)

_AMOUNTS = ("characters", "requests", "segments", "source_tokens", "target_tokens")
_CHUNK = 500  # names in one IN (…)
KEYS_A_PAGE = 1000
_KEYS_A_TURN = 150  # some 2 ms of the event loop
_IDS_A_PAGE = 2000
_ROWS_A_TURN = 1000


class Store:
    """One database. One event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str) -> Store:
        """Connect, and bring the tables up to date. Raises ConfigError, StoreUnavailable."""
        return cls(await Database.open(url))

    async def close(self) -> None:
        await self._database.close()

    # Keys

    async def find_key(self, digest: bytes) -> KeyRecord | None:
        """The key with this digest, whether or not it is still good."""
        async with self._database.read() as connection:
            found = (await connection.execute(select(tables.keys).where(tables.keys.c.digest == digest))).first()
        return None if found is None else rows.row_to_key(found)

    async def list_keys(self) -> list[KeyRecord]:
        """All keys ever made, the oldest first."""
        query = select(tables.keys).order_by(tables.keys.c.created_at, tables.keys.c.id)
        async with self._database.read() as connection:
            return [rows.row_to_key(row) for row in await connection.execute(query)]

    async def add_key(self, key: KeyRecord, event: AuditEvent | None = None) -> None:
        """Store a new key, and the event with it. Raises InternalError if its id or digest is taken."""
        async with self._database.write() as connection:
            generation = await _next_generation(connection)
            await connection.execute(insert(tables.keys).values(rows.key_to_row(key, generation)))
            await _add_events(connection, [event] if event else [])

    async def replace_key(
        self, old_id: str, old_expires_at: datetime, key: KeyRecord, event: AuditEvent | None = None
    ) -> bool:
        """Store `key`; the old one ends at `old_expires_at` unless it ends sooner. False: there is no old one."""
        old = tables.keys
        async with self._database.write() as connection:
            generation = await _next_generation(connection)
            ends_later = or_(old.c.expires_at.is_(None), old.c.expires_at > old_expires_at)
            await connection.execute(
                update(old)
                .where(old.c.id == old_id, ends_later)
                .values(expires_at=old_expires_at, generation=generation)
            )
            if (await connection.execute(select(old.c.id).where(old.c.id == old_id))).first() is None:
                return False
            await connection.execute(insert(old).values(rows.key_to_row(key, generation)))
            await _add_events(connection, [event] if event else [])
        return True

    async def revoke_key(self, key_id: str, at: datetime, event: AuditEvent | None = None) -> bool:
        """Revoke a key and its sessions. False if there is no such key, or it was revoked before."""
        async with self._database.write() as connection:
            generation = await _next_generation(connection)
            done = await connection.execute(
                update(tables.keys)
                .where(tables.keys.c.id == key_id, tables.keys.c.revoked_at.is_(None))
                .values(revoked_at=at, generation=generation)
            )
            if done.rowcount == 0:
                return False
            await connection.execute(
                update(tables.sessions)
                .where(tables.sessions.c.key_id == key_id, tables.sessions.c.revoked_at.is_(None))
                .values(revoked_at=at, generation=generation)
            )
            await _add_events(connection, [event] if event else [])
        return True

    async def key_generation(self) -> int:
        """How often keys and sessions were changed so far."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(tables.generations.c.generation))).scalar_one())

    async def key_changes(self, since: int) -> KeyChanges:
        """Keys and revoked sessions that changed after generation `since`; 0: all there are."""
        keys, sessions = tables.keys, tables.sessions
        async with self._database.read() as connection:
            generation = int((await connection.execute(select(tables.generations.c.generation))).scalar_one())
            if since >= generation:
                return KeyChanges(generation, (), frozenset(), is_set_back=since > generation)
            changed = await _keys_of(connection, select(keys).where(keys.c.generation > literal(since)))
            query = _revoked_sessions().where(sessions.c.generation > literal(since))
            revoked = frozenset((await connection.execute(query)).scalars())
        return KeyChanges(generation, changed, revoked)

    async def key_page(self, after_id: str) -> tuple[KeyRecord, ...]:
        """The next keys in the order of ids, revoked ones too; () at the end. The first page is after ""."""
        keys = tables.keys
        query = select(keys).where(keys.c.id > after_id).order_by(keys.c.id).limit(KEYS_A_PAGE)
        async with self._database.read() as connection:
            return await _keys_of(connection, query)

    async def revoked_sessions_page(self, after_id: str) -> tuple[str, ...]:
        """Likewise: ids of revoked sessions that would go on otherwise."""
        sessions = tables.sessions
        query = _revoked_sessions().where(sessions.c.id > after_id).order_by(sessions.c.id).limit(_IDS_A_PAGE)
        async with self._database.read() as connection:
            return tuple((await connection.execute(query)).scalars())

    # Sessions

    async def add_session(self, session: SessionRecord) -> None:
        async with self._database.write() as connection:
            await connection.execute(insert(tables.sessions).values(rows.session_to_row(session)))

    async def find_session(self, session_id: str) -> SessionRecord | None:
        query = select(tables.sessions).where(tables.sessions.c.id == session_id)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).first()
        return None if found is None else rows.row_to_session(found)

    async def revoke_session(self, session_id: str, at: datetime) -> bool:
        """False if there is no such session, or it was revoked before."""
        async with self._database.write() as connection:
            generation = await _next_generation(connection)
            done = await connection.execute(
                update(tables.sessions)
                .where(tables.sessions.c.id == session_id, tables.sessions.c.revoked_at.is_(None))
                .values(revoked_at=at, generation=generation)
            )
        return bool(done.rowcount)

    # Usage

    async def book_usage(self, batch: UsageBatch) -> bool:
        """Add a batch to what is booked; False if it was booked before, and then nothing changes.

        With a synchronous standby, either answer means that the standby has the batch: a repetition writes, too, so
        its commit waits for the standby like the first one's.
        """
        async with self._database.write() as connection:
            if not await self._is_first(connection, batch.id):
                return False
            entries = await asyncio.to_thread(_summed, batch.entries)
            for first in range(0, len(entries), _CHUNK):  # the loop gets turns in between
                await connection.execute(self._usage_upsert(), entries[first : first + _CHUNK])
        return True

    async def usage_of(self, account: str, first_day: date, last_day: date) -> list[UsageEntry]:
        """Day by day, both ends included; days without use are not there."""
        usage = tables.usage
        query = select(usage).where(usage.c.account == account, usage.c.day.between(first_day, last_day))
        async with self._database.read() as connection:
            return [rows.row_to_usage(row) for row in await connection.execute(query.order_by(usage.c.day))]

    async def usage_totals(
        self, first_day: date, last_day: date, accounts: Collection[str] | None = None
    ) -> dict[str, int]:
        """Characters by account from `first_day` to `last_day`; of all accounts unless some are named."""
        usage = tables.usage
        query = (
            select(usage.c.account, func.sum(usage.c.characters))
            .where(usage.c.day.between(first_day, last_day))
            .group_by(usage.c.account)
        )
        names = None if accounts is None else sorted(accounts)
        queries = (
            [query]
            if names is None
            else [
                query.where(usage.c.account.in_(names[start : start + _CHUNK]))
                for start in range(0, len(names), _CHUNK)
            ]
        )
        totals: dict[str, int] = {}
        async with self._database.read() as connection:
            for part in queries:
                found = await connection.execute(part)
                while some := found.fetchmany(_ROWS_A_TURN):
                    totals.update((account, int(total)) for account, total in some)
                    await asyncio.sleep(0)
        return totals

    def _usage_upsert(self) -> Insert:
        statement = self._insert(tables.usage)
        sums = {name: tables.usage.c[name] + statement.excluded[name] for name in _AMOUNTS}
        return statement.on_conflict_do_update(index_elements=["account", "day"], set_=sums)

    async def _is_first(self, connection: AsyncConnection, batch_id: str) -> bool:
        statement = self._insert(tables.batches).values(id=batch_id, attempts=1, booked_at=func.current_timestamp())
        counted = statement.on_conflict_do_update(
            index_elements=["id"], set_={"attempts": tables.batches.c.attempts + 1}
        ).returning(tables.batches.c.attempts)
        return bool((await connection.execute(counted)).scalar_one() == 1)

    def _insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        return postgresql.insert(table) if self._database.dialect == "postgresql" else sqlite.insert(table)

    # Audit log

    async def add_audit(self, events: Sequence[AuditEvent], batch_id: str | None = None) -> bool:
        """Append events. With a batch id they are added once, however often this is called; False if they were."""
        async with self._database.write() as connection:
            if batch_id is not None and not await self._is_first(connection, batch_id):
                return False
            await _add_events(connection, events)
        return True

    async def list_audit(
        self, *, since: datetime | None = None, action: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        """The newest events, the newest first."""
        audit = tables.audit
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if since is not None:
            query = query.where(audit.c.at >= since)
        if action is not None:
            query = query.where(audit.c.action == action)
        async with self._database.read() as connection:
            return [rows.row_to_audit(row) for row in await connection.execute(query)]

    # Glossaries

    async def add_glossary(self, glossary: GlossaryRecord) -> None:
        async with self._database.write() as connection:
            await connection.execute(insert(tables.glossaries).values(rows.glossary_to_row(glossary)))

    async def find_glossary(self, account: str, glossary_id: str) -> GlossaryRecord | None:
        """An account's glossary; None for another's, too."""
        table = tables.glossaries
        async with self._database.read() as connection:
            query = select(table).where(table.c.account == clean_name(account), table.c.id == glossary_id)
            found = (await connection.execute(query)).first()
        return None if found is None else rows.row_to_glossary(found)

    async def list_glossaries(self, account: str) -> list[GlossaryRecord]:
        table = tables.glossaries
        query = select(table).where(table.c.account == clean_name(account)).order_by(table.c.created_at, table.c.id)
        async with self._database.read() as connection:
            return [rows.row_to_glossary(row) for row in await connection.execute(query)]

    async def delete_glossary(self, account: str, glossary_id: str) -> bool:
        """False if the account has no such glossary."""
        table = tables.glossaries
        ours = delete(table).where(table.c.account == clean_name(account), table.c.id == glossary_id)
        async with self._database.write() as connection:
            done = await connection.execute(ours)
        return bool(done.rowcount)

    # Upkeep

    async def tidy(
        self,
        *,
        batches_before: datetime,
        sessions_before: datetime,
        audit_before: datetime | None = None,
        usage_before: date | None = None,
    ) -> None:
        """Forget batches that nobody will repeat, sessions that ended, and, if a time is given, audit and usage."""
        async with self._database.write() as connection:
            await connection.execute(delete(tables.batches).where(tables.batches.c.booked_at < batches_before))
            await connection.execute(delete(tables.sessions).where(tables.sessions.c.expires_at < sessions_before))
            if audit_before is not None:
                await connection.execute(delete(tables.audit).where(tables.audit.c.at < audit_before))
            if usage_before is not None:
                await connection.execute(delete(tables.usage).where(tables.usage.c.day < usage_before))


async def _keys_of(connection: AsyncConnection, query: Select[Any]) -> tuple[KeyRecord, ...]:
    found = await connection.execute(query)
    keys: list[KeyRecord] = []
    while some := found.fetchmany(_KEYS_A_TURN):
        keys += map(rows.row_to_key, some)
        await asyncio.sleep(0)
    return tuple(keys)


def _revoked_sessions() -> Select[Any]:
    sessions = tables.sessions
    return select(sessions.c.id).where(
        sessions.c.revoked_at.is_not(None), sessions.c.expires_at > func.current_timestamp()
    )


async def _next_generation(connection: AsyncConnection) -> int:
    """Count up, first thing in a transaction that changes keys: the row's lock keeps such transactions in order."""
    counted = update(tables.generations).values(generation=tables.generations.c.generation + 1)
    return int((await connection.execute(counted.returning(tables.generations.c.generation))).scalar_one())


async def _add_events(connection: AsyncConnection, events: Sequence[AuditEvent]) -> None:
    if events:
        await connection.execute(insert(tables.audit), [rows.audit_to_row(event) for event in events])


def _summed(entries: Sequence[UsageEntry]) -> list[dict[str, object]]:
    """One row an account and day, in one order everywhere: two hosts that book at once do not deadlock."""
    sums: dict[tuple[str, date], list[int]] = {}
    for entry in entries:
        total = sums.setdefault((entry.account, entry.day), [0] * len(_AMOUNTS))
        for index, name in enumerate(_AMOUNTS):
            total[index] += getattr(entry, name)
    return [
        {"account": account, "day": day, **dict(zip(_AMOUNTS, total, strict=True))}
        for (account, day), total in sorted(sums.items())
    ]
