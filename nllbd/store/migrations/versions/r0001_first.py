"""The first tables: keys, sessions, usage, audit log, glossaries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _make_keys()
    _make_usage()
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(300), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_table(
        "glossaries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(300), nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("source_lang", sa.String(20), nullable=False),
        sa.Column("target_lang", sa.String(20), nullable=False),
        sa.Column("entries", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )
    op.create_index("ix_glossaries_account", "glossaries", ["account"])


def _make_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("replaces", sa.String(64)),
        sa.Column("family", sa.String(64)),
        sa.Column("rate_per_minute", sa.Integer),
        sa.Column("rate_burst", sa.Integer),
        sa.Column("monthly_characters", sa.BigInteger),
        sa.Column("top_priority", sa.String(20), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_keys_generation", "keys", ["generation"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64)),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
        sa.Column("generation", sa.BigInteger),
    )
    for column in ("key_id", "expires_at", "generation"):
        op.create_index(f"ix_sessions_{column}", "sessions", [column])
    generations = op.create_table(
        "generations",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(generations, [{"id": 1, "generation": 0}])


def _make_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("account", sa.String(300), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("characters", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("segments", sa.BigInteger, nullable=False),
        sa.Column("source_tokens", sa.BigInteger, nullable=False),
        sa.Column("target_tokens", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_usage_day", "usage", ["day"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("booked_at", _TIME, nullable=False),
    )
    op.create_index("ix_batches_booked_at", "batches", ["booked_at"])
