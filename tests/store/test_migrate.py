from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import nllbd.store.migrate as migrate_module
from nllbd.errors import ConfigError, StoreUnavailable
from nllbd.store.database import Database
from nllbd.store.migrate import HEAD
from nllbd.store.store import Store
from nllbd.store.tables import metadata
from tests.store.test_store import make_key

MIGRATIONS = Path(migrate_module.__file__).parent / "migrations"


def test_the_newest_revision_is_the_one_that_code_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_migrations_make_the_tables_that_code_describes(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with store._database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_many_that_start_at_once_find_it_migrated_once(store_url: str) -> None:
    stores = await asyncio.gather(*(Store.open(store_url) for _ in range(5)))
    async with stores[0]._database.read() as connection:
        assert (await connection.execute(text("SELECT generation FROM generations"))).scalars().all() == [0]
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [HEAD]
    for store in stores:
        await store.close()


def test_processes_that_start_at_once_find_it_migrated_once(store_url: str) -> None:
    script = "import asyncio, sys; from nllbd.store.store import Store; asyncio.run(Store.open(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", script, store_url]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


async def test_an_upgrade_waits_for_the_one_that_is_under_way_as_long_as_it_is_told(store_url: str) -> None:
    """Another host migrates, and takes its time: the lock is its, on PostgreSQL and on SQLite."""
    impatient = await Database.connect(store_url, statement_s=0.3)
    patient = await Database.connect(store_url, statement_s=60)
    holder = (await Database.connect(store_url))._engine.execution_options(writes=True)  # SQLite: takes the write lock
    async with holder.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({migrate_module._LOCK})"))
        with pytest.raises(StoreUnavailable):
            await impatient.migrate(30, lock_s=30)
        waiting = asyncio.create_task(patient.migrate(60, lock_s=60))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert await waiting
    assert await patient.revision() == HEAD
    for database in (impatient, patient):
        await database.close()
    await holder.dispose()


async def test_a_database_of_a_later_version_is_served_as_it_is(
    store_url: str, open_store: Callable[..., object]
) -> None:
    first = await Store.open(store_url)
    async with first._database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.execute(text("ALTER TABLE usage ADD COLUMN colour VARCHAR(20)"))
    await first.close()
    second = await Store.open(store_url)
    key = make_key()
    await second.add_key(key)
    assert await second.find_key(key.digest) == key
    await second.close()


def test_an_ordinary_start_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    script = (
        "import asyncio, sys; from nllbd.store.store import Store; asyncio.run(Store.open(sys.argv[1]));"
        "sys.exit('alembic' in sys.modules)"
    )
    assert [subprocess.run([sys.executable, "-c", script, url], check=False).returncode for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "no url"])
async def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="database_url"):
        await Database.open(url)


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for url in (f"sqlite+aiosqlite:///{tmp_path}/file/x.db", "postgresql+asyncpg://nobody:secret@127.0.0.1:1/none"):
        with pytest.raises(StoreUnavailable) as caught:
            await Database.open(url)
        assert "secret" not in str(caught.value)


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"this is not a database, it is a letter" * 100)
    with pytest.raises(StoreUnavailable):
        await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
