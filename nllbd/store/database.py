"""Connections and transactions: SQLite or PostgreSQL by URL, time limits on everything, failures as typed errors.

Knows nothing of what is stored. Importing it imports SQLAlchemy (some 0.2 s): not before it is needed, and not on the
event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nllbd.errors import ConfigError, InternalError, NllbdError, StoreUnavailable
from nllbd.store.migrate import LOCK_S, migrate, revision
from nllbd.store.postgresql import connect, spread_hosts

#: How long one transaction may take, waiting for locks and standbys included.
OPERATION_S = 5.0
MIGRATION_S = 60.0
_CONNECT_S = 3.0
_BUSY_S = 3.0
_POOL_SIZE = 3
#: SQLSTATE classes that blame the data, not the database: sending it again cannot help.
_DATA_CLASSES = ("22", "23")


class Database:
    """A pool of connections. One event loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> Database:
        """Connect and migrate. Raises ConfigError for a URL that cannot be one, StoreUnavailable."""
        database = await cls.connect(url)
        try:
            await database.migrate(MIGRATION_S)
        except BaseException:
            await database.close()
            raise
        return database

    @classmethod
    async def connect(cls, url: str, statement_s: float = OPERATION_S) -> Database:
        """A pool for a database as it is; `statement_s` is what one statement may take, waiting for locks included.

        Raises ConfigError for a URL that cannot be one, StoreUnavailable.
        """
        return cls(await asyncio.to_thread(_create_engine, _parse(url), statement_s))  # imports the driver

    async def migrate(self, within_s: float, lock_s: float = LOCK_S) -> bool:
        """Bring the tables up to date, under the lock; False if they were. Raises StoreUnavailable."""
        with _typed_errors():
            async with asyncio.timeout(within_s):
                return await migrate(self._engine, lock_s)

    async def revision(self) -> str | None:
        """What the tables are at; None when there are none. Raises StoreUnavailable."""
        with _typed_errors():
            async with asyncio.timeout(OPERATION_S):
                return await revision(self._engine)

    async def close(self) -> None:
        with suppress(SQLAlchemyError, OSError, TimeoutError):
            async with asyncio.timeout(OPERATION_S):
                await self._engine.dispose()

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read from. Raises StoreUnavailable."""
        with _typed_errors():
            async with asyncio.timeout(OPERATION_S), self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end.

        Raises StoreUnavailable (whether it was committed is unknown then), InternalError if the data is at fault.
        """
        with _typed_errors():
            async with asyncio.timeout(OPERATION_S), self._engine.execution_options(writes=True).begin() as connection:
                yield connection


class _typed_errors:  # noqa: N801 - reads as the function it stands for; a generator would lose tracebacks of asyncio
    """Turn what drivers raise into our errors. Messages name the kind of error only: drivers' own quote data."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, NllbdError):
            return
        if isinstance(error, DBAPIError) and _is_about_data(error):
            raise InternalError(f"the database refused the data ({_name(error)})") from error
        if isinstance(error, SQLAlchemyError | OSError | TimeoutError):
            raise StoreUnavailable(f"the database does not answer ({_name(error)}); try again") from error


def _is_about_data(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_DATA_CLASSES)
    return isinstance(error.orig, aiosqlite.IntegrityError | sqlite3.DataError)


def _name(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    cause = cause.__cause__ or cause
    return type(cause).__name__


def _parse(url: str) -> URL:
    try:
        parsed = make_url(spread_hosts(url))
    except (ArgumentError, ValueError):
        raise ConfigError("database_url: not a URL that SQLAlchemy understands", field="database_url") from None
    if parsed.get_backend_name() == "sqlite":
        _check_sqlite(parsed)
    return parsed


def _check_sqlite(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise ConfigError(
            "database_url: SQLite needs a file: sqlite+aiosqlite:////path/of/file.db", field="database_url"
        )


def _create_engine(url: URL, statement_s: float) -> AsyncEngine:
    options: dict[str, Any] = {"pool_size": _POOL_SIZE, "max_overflow": _POOL_SIZE, "pool_timeout": OPERATION_S}
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            url, connect_args={"timeout": _BUSY_S if statement_s == OPERATION_S else statement_s}, **options
        )
        _prepare_sqlite(engine, Path(str(url.database)))
        return engine
    arguments = {
        "async_creator_fn": connect,
        "timeout": _CONNECT_S,  # for each server
        "command_timeout": statement_s,
        "server_settings": {"application_name": "nllbd", "lock_timeout": f"{int(_BUSY_S * 1000)}"},
    }
    try:
        return create_async_engine(url, connect_args=arguments, pool_pre_ping=True, **options)
    except ModuleNotFoundError:
        raise ConfigError(
            "database_url: PostgreSQL needs asyncpg: pip install 'nllbd[postgresql]'", field="database_url"
        ) from None


def _prepare_sqlite(engine: AsyncEngine, path: Path) -> None:
    """Write-ahead log, every commit on disk, our own BEGIN (the driver's comes too late for reads and for DDL)."""
    with suppress(OSError):  # what is wrong here will be wrong when SQLite opens the file, and is told then
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)
            if os.geteuid() == 0:  # `nllbd keys` as root in a service's folder: the service must be able to write
                owner = path.parent.stat()
                os.chown(path, owner.st_uid, owner.st_gid)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
