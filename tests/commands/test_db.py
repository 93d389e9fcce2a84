from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from nllbd.cli import main
from nllbd.store.database import Database
from nllbd.store.migrate import HEAD


def set_revision(url: str, revision: str) -> None:
    async def change() -> None:
        database = await Database.open(url)
        async with database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        await database.close()

    asyncio.run(change())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"


def test_an_empty_database_is_upgraded_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check", "--database-url", url]) == 1
    assert f"at revision none, this version needs {HEAD}" in capsys.readouterr().out
    assert main(["db", "upgrade", "--database-url", url]) == 0
    assert f"upgraded from revision none to {HEAD}" in capsys.readouterr().out
    assert main(["db", "upgrade", "--database-url", url]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["db", "check", "--database-url", url]) == 0


def test_check_changes_nothing(url: str, tmp_path: Path) -> None:
    main(["db", "check", "--database-url", url])

    async def tables() -> str | None:
        database = await Database.connect(url)
        try:
            return await database.revision()
        finally:
            await database.close()

    assert asyncio.run(tables()) is None


def test_a_later_versions_database_is_left_as_it_is(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_revision(url, "9999")
    for action in ("check", "upgrade"):
        assert main(["db", action, "--database-url", url]) == 0
    shown = capsys.readouterr().out
    assert "of a later version" in shown
    assert "nothing to do, at revision 9999" in shown


def test_several_at_once_upgrade_once(url: str) -> None:
    """What every host does when all are upgraded together; a password is not shown."""
    command = [sys.executable, "-m", "nllbd", "db", "upgrade", "--database-url", url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("upgraded from" in output for output in outputs) == 1
    assert sum("nothing to do" in output for output in outputs) == 2


def test_a_database_that_is_away_is_said_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    away = "postgresql+asyncpg://nobody:secret@127.0.0.1:1/none"
    assert main(["db", "upgrade", "--database-url", away]) == 1
    shown = capsys.readouterr()
    assert "the database does not answer" in shown.err
    assert "secret" not in shown.err + shown.out
