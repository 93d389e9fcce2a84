"""What operators ask the database: who used how much, when a key was last used, what the audit log says, how much is
stored. Reads only; the daemon does not come here.
"""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import func, select

from nllbd.store import rows, tables
from nllbd.store.database import Database
from nllbd.store.records import AuditEvent, KeyRecord, UsageEntry


class Reports:
    """One database. One event loop. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str) -> Reports:
        """Raises ConfigError, StoreUnavailable."""
        return cls(await Database.open(url))

    async def close(self) -> None:
        await self._database.close()

    async def keys(self) -> list[KeyRecord]:
        """All keys ever made, the oldest first."""
        query = select(tables.keys).order_by(tables.keys.c.created_at, tables.keys.c.id)
        async with self._database.read() as connection:
            return [rows.row_to_key(row) for row in await connection.execute(query)]

    async def last_used(self) -> dict[str, date]:
        """Account → the last day (UTC) on which it used anything."""
        usage = tables.usage
        query = select(usage.c.account, func.max(usage.c.day).label("day")).group_by(usage.c.account)
        async with self._database.read() as connection:
            return {row.account: row.day for row in await connection.execute(query)}

    async def usage_between(self, first: date, last: date) -> list[UsageEntry]:
        """All accounts, day by day, both ends included."""
        usage = tables.usage
        query = select(usage).where(usage.c.day.between(first, last)).order_by(usage.c.day, usage.c.account)
        async with self._database.read() as connection:
            return [rows.row_to_usage(row) for row in await connection.execute(query)]

    async def audit_since(
        self, since: datetime, *, action: str = "", subject: str = "", limit: int = 10_000
    ) -> list[AuditEvent]:
        """The newest events since then, the newest first; of one action, and with one subject, if given."""
        audit = tables.audit
        query = select(audit).where(audit.c.at >= since).order_by(audit.c.id.desc()).limit(limit)
        if action:
            query = query.where(audit.c.action == action)
        if subject:
            query = query.where(audit.c.subject == subject)
        async with self._database.read() as connection:
            return [rows.row_to_audit(row) for row in await connection.execute(query)]

    async def counts(self, now: datetime) -> dict[str, int]:
        """Rows by table, and sessions that have ended."""
        ended = select(func.count()).select_from(tables.sessions).where(tables.sessions.c.expires_at < now)
        found: dict[str, int] = {}
        async with self._database.read() as connection:
            for name in ("keys", "sessions", "usage", "batches", "audit", "glossaries"):
                query = select(func.count()).select_from(tables.metadata.tables[name])
                found[name] = int((await connection.execute(query)).scalar_one())
            found["ended_sessions"] = int((await connection.execute(ended)).scalar_one())
        return found
