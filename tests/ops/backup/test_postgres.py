"""PostgreSQL: dumped with its figures while it is written to, verified in a scratch cluster, restored into another."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

import pytest

from nllbd.ops.backup.postgres import Server, facts_of
from nllbd.store.records import UsageBatch, UsageEntry
from nllbd.store.store import Store
from tests.ops.backup.conftest import Place
from tests.ops.kit.daemons import free_port
from tests.ops.kit.programs import eventually, need, need_root

pytestmark = pytest.mark.ops

PASSWORD = "pg-password-81c4"


@pytest.fixture
def cluster() -> Iterator[tuple[str, str]]:
    """URLs of two empty databases of one server, which wants a password."""
    need_root()
    programs = need("initdb", "postgres", "pg_dump", "pg_restore")
    user = pwd.getpwnam("postgres")
    folder, port = Path(mkdtemp(prefix="nllbd-postgres-")), free_port()
    os.chown(folder, user.pw_uid, user.pw_gid)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    (folder / "password").chmod(0o644)
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder, "env": {"LC_ALL": "C"}}
    command = [programs["initdb"], "-D", folder / "data", "-U", "nllbd", "-A", "scram-sha-256", "--no-sync"]
    subprocess.run([*command, f"--pwfile={folder}/password"], check=True, capture_output=True, **who)
    command = [programs["postgres"], "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "fsync=off"]
    with subprocess.Popen([*command, "-h", "127.0.0.1"], stderr=subprocess.DEVNULL, **who) as process:
        try:
            environ = os.environ | {"PGPASSWORD": PASSWORD}
            base = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "nllbd", "-d", "postgres", "-qc"]
            eventually(lambda: _ok([*base, "CREATE DATABASE one"], environ), what="PostgreSQL")
            assert _ok([*base, "CREATE DATABASE two"], environ)
            yield tuple(f"postgresql+asyncpg://nllbd:{PASSWORD}@127.0.0.1:{port}/{name}" for name in ("one", "two"))
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


def _ok(command: list[str], environ: dict[str, str]) -> bool:
    return subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0


def _book(url: str, is_over: threading.Event) -> int:
    """Book batches until told otherwise; how many."""

    async def work() -> int:
        store, number = await Store.open(url), 0
        while not is_over.is_set():
            entry = UsageEntry(f"key:{number % 7}", datetime.now(UTC).date(), 100, 1)
            await store.book_usage(UsageBatch(f"batch-{number}", (entry,)))
            number += 1
        await store.close()
        return number

    return asyncio.run(work())


def test_a_dump_of_a_database_in_use_comes_back_as_it_was(
    place: Place, cluster: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    """The figures in the manifest are those of the dump, though usage was booked all the while."""
    work = Path(mkdtemp(prefix="nllbd-work-", dir="/var/tmp"))  # the scratch server's user must get there
    work.chmod(0o711)
    request.addfinalizer(lambda: shutil.rmtree(work))
    place.write_plan(folder=str(work))
    place.secret("database_url", cluster[0])
    place.nllbd("keys", "create", "ada", "--config", str(place.config))
    is_over = threading.Event()
    booking = threading.Thread(target=_book, args=(cluster[0], is_over))
    booking.start()
    try:
        server = Server.from_url(cluster[0])
        eventually(lambda: facts_of(server)["batches"] > 5, what="bookings")
        place.run("backup")
    finally:
        is_over.set()
        booking.join()
    verified = place.run("backup-verify").stdout
    assert "as stored" in verified
    assert "started from the backup" in verified
    assert PASSWORD not in verified

    place.secret("database_url", cluster[1])  # the settings of the host that takes its place
    place.run("restore", "--only", "database", "--no-start")
    restored = facts_of(Server.from_url(cluster[1]))
    assert restored["keys"] == 1
    assert restored["usage_characters"] == 100 * restored["batches"] > 0
    refused = place.run("restore", "--only", "database", "--no-start", check=False)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    place.run("restore", "--only", "database", "--replace", "--no-start")
    assert facts_of(Server.from_url(cluster[1])) == restored
