"""The tables, as SQLAlchemy describes them. `migrations/` makes them; a test holds the two against each other.

Rules for changes, so that the version before and the version after can serve from one database at the same time: a
migration only adds (tables, columns with a default or NULL, indexes); a column goes away one version after the last
code that reads or writes it. Code reads columns by name and takes values that it does not know for the safe ones.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, also where the database knows no zones (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: SQLite counts rows up only in a column that is called INTEGER.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("replaces", String(64)),
    Column("family", String(64)),
    Column("rate_per_minute", Integer),
    Column("rate_burst", Integer),
    Column("monthly_characters", BigInteger),
    Column("top_priority", String(20), nullable=False),
    Column("generation", BigInteger, nullable=False, index=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64), index=True),
    Column("subject", String(300), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("revoked_at", UtcDateTime),
    Column("generation", BigInteger, index=True),
)

#: One row. Who changes a key or revokes a session counts it up first: its row lock puts all changes in one order.
generations = Table(
    "generations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("account", String(300), primary_key=True),
    Column("day", Date, primary_key=True, index=True),
    Column("characters", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("segments", BigInteger, nullable=False),
    Column("source_tokens", BigInteger, nullable=False),
    Column("target_tokens", BigInteger, nullable=False),
)

#: What was booked already, by batch id.
batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("booked_at", UtcDateTime, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _RowNumber, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor", String(300), nullable=False),
    Column("action", String(100), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("details", JSON, nullable=False),
)

glossaries = Table(
    "glossaries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account", String(300), nullable=False, index=True),
    Column("name", String(300), nullable=False),
    Column("source_lang", String(20), nullable=False),
    Column("target_lang", String(20), nullable=False),
    Column("entries", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
