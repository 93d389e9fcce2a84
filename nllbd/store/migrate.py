"""Brings a database's tables to what this version needs, under a lock: of several daemons that start, one does it.

A database that a later version has changed is served as it is: migrations only add (see tables.py). alembic is
imported only when there is something to do, so an ordinary start does not pay for it.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

#: The newest revision in `migrations/versions`; a test holds it against the files.
HEAD = "0001"
_LOCK = 0x6E6C6C6264  # "nllbd": the number of the advisory lock
_LOCK_TIMEOUT = "30s"


async def migrate(engine: AsyncEngine) -> bool:
    """Run what is missing; False if nothing was. Raises SQLAlchemy's errors."""
    async with engine.connect() as connection:
        if await connection.run_sync(_revision) == HEAD:
            return False
    await asyncio.to_thread(importlib.import_module, "alembic.command")  # a quarter of a second
    async with engine.execution_options(writes=True).begin() as connection:  # on SQLite: takes the write lock
        if connection.dialect.name == "postgresql":
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        return await connection.run_sync(_upgrade)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> bool:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    found = _revision(connection)  # now under the lock: another daemon may have been faster
    if found == HEAD or (found is not None and found not in known):
        return False
    command.upgrade(config, HEAD)
    return True
