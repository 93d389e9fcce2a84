"""Brings a database's tables to what this version needs, under a lock: of several daemons that start, one does it.

A database that a later version has changed is served as it is: migrations only add (see tables.py). alembic is
imported only when there is something to do, so an ordinary start does not pay for it.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision in `migrations/versions`; a test holds it against the files.
HEAD = "0001"
_LOCK = 0x6E6C6C6264  # "nllbd": the number of the advisory lock
LOCK_S = 30.0


async def revision(engine: AsyncEngine) -> str | None:
    """What the database is at; None when it has no tables of ours. Raises SQLAlchemy's errors."""
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


def is_older(found: str | None) -> bool:
    """Whether this version has migrations that a database at `found` lacks. One of a later version is not older."""
    return found != HEAD and (found is None or found in _known_revisions())


async def migrate(engine: AsyncEngine, lock_s: float = LOCK_S) -> bool:
    """Run what is missing; False if nothing was. Waits `lock_s` for another that does. Raises SQLAlchemy's errors."""
    if await revision(engine) == HEAD:
        return False
    await asyncio.to_thread(importlib.import_module, "alembic.command")  # a quarter of a second
    async with engine.execution_options(writes=True).begin() as connection:  # on SQLite: takes the write lock
        if connection.dialect.name == "postgresql":
            await connection.execute(text(f"SET LOCAL lock_timeout = '{int(lock_s)}s'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        return await connection.run_sync(_upgrade)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> bool:
    from alembic import command

    if not is_older(_revision(connection)):  # now under the lock: another daemon may have been faster
        return False
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
    return True


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
