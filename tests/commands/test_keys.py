from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nllbd.cli import main
from nllbd.store import key_text
from nllbd.store.records import AuditEvent, KeyRecord, UsageBatch, UsageEntry
from nllbd.store.store import Store

Keys = Callable[..., Any]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default database of a user whose state folder is empty."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return f"sqlite+aiosqlite:///{tmp_path / 'nllbd.db'}"


@pytest.fixture
def keys(url: str, capsys: pytest.CaptureFixture[str]) -> Keys:
    """`keys("create", "ada")`: what the command says with --json."""

    def call(*arguments: str) -> Any:
        assert main(["keys", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def in_store(url: str, act: Callable[[Store], Any]) -> Any:
    async def work() -> Any:
        store = await Store.open(url)
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(work())


def find(url: str, text: str) -> KeyRecord | None:
    return in_store(url, lambda store: store.find_key(key_text.digest(text)))


def audit(url: str) -> list[AuditEvent]:
    return in_store(url, lambda store: store.list_audit())


def test_a_created_key_is_stored_hashed_with_its_limits(keys: Keys, url: str, tmp_path: Path) -> None:
    limits = ("--rate-per-minute", "60", "--rate-burst", "5", "--monthly-characters", "1000000", "--priority", "bulk")
    made = keys("create", "Ada's site", "--scope", "translate", "--scope", "admin", "--expires", "90d", *limits)
    key = find(url, made["key"])
    assert key is not None
    assert key.name == "Ada's site"
    assert sorted(key.scopes) == ["admin", "translate"]
    assert (key.limits.rate_per_minute, key.limits.rate_burst, key.limits.monthly_characters) == (60, 5, 1_000_000)
    assert key.limits.top_priority.name == "BULK"
    assert key.expires_at == key.created_at + timedelta(days=90)
    secret = made["key"].split("_")[2].encode()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and secret in file.read_bytes()]
    assert stat.S_IMODE((tmp_path / "nllbd.db").stat().st_mode) == 0o600


def test_the_audit_log_tells_who_did_what(keys: Keys, url: str) -> None:
    made = keys("create", "ada")
    newer = keys("rotate", "ada")
    keys("revoke", newer["id"])
    events = [(event.action, event.subject) for event in audit(url)]
    assert events == [("key.revoked", newer["id"]), ("key.rotated", newer["id"]), ("key.created", made["id"])]
    assert all(event.actor.startswith("cli:") for event in audit(url))
    assert not [event for event in audit(url) if made["key"] in str(event)]


def test_the_list_shows_this_months_usage_and_hides_what_is_over(keys: Keys, url: str) -> None:
    made, other = keys("create", "ada"), keys("create", "bob")
    today = datetime.now(UTC).date()
    entries = (UsageEntry(made["account"], today, 42), UsageEntry(made["account"], today.replace(year=2020, day=1), 7))
    in_store(url, lambda store: store.book_usage(UsageBatch("b", entries)))
    keys("revoke", "bob")
    assert [(it["name"], it["characters_this_month"]) for it in keys("list")] == [("ada", 42)]
    assert [(it["id"], it["status"]) for it in keys("list", "--all")] == [
        (made["id"], "active"),
        (other["id"], "revoked"),
    ]
    assert "key" not in keys("list")[0]


def test_rotation_overlaps_and_keeps_account_and_limits(keys: Keys, url: str) -> None:
    made = keys("create", "ada", "--monthly-characters", "10", "--expires", "10d")
    newer = keys("rotate", "ada", "--overlap", "2h")
    newest = keys("rotate", newer["id"], "--overlap", "30m", "--expires", "never")
    old, new, last = (find(url, it["key"]) for it in (made, newer, newest))
    assert old is not None
    assert new is not None
    assert last is not None
    assert old.expires_at == new.created_at + timedelta(hours=2)
    assert new.expires_at == last.created_at + timedelta(minutes=30)
    assert last.expires_at is None
    assert old.account == new.account == last.account
    assert last.limits == old.limits
    assert (new.replaces, last.replaces) == (old.id, new.id)
    assert datetime.fromisoformat(newer["expires_at"]) > datetime.now(UTC) + timedelta(days=9)


def test_a_rotation_of_a_key_that_lasts_to_the_calendar_s_end(
    keys: Keys, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = keys("create", "ada", "--expires", "9999-12-31")
    with closing(sqlite3.connect(tmp_path / "nllbd.db")) as database:
        database.execute("UPDATE keys SET created_at = '2026-01-01 00:00:00.000000'")
        database.commit()
    assert main(["keys", "rotate", "ada"]) == 1
    assert "year 9999; give --expires" in capsys.readouterr().err
    assert [it["id"] for it in keys("list")] == [old["id"]]
    assert keys("rotate", "ada", "--expires", "never")["expires_at"] is None


def test_people_get_lines(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "ada"]) == 0
    said = capsys.readouterr()
    key = said.out.split()[1]
    assert key_text.is_key_text(key)
    assert "Keep the key now" in said.err
    assert url.partition(":///")[2] in said.err
    assert main(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[:3] == ["ID", "NAME", "SCOPES"]
    assert key not in said.out + said.err
    assert main(["keys", "revoke", key]) == 0
    assert "within 5 s" in capsys.readouterr().out
    assert main(["keys", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["revoke", "nobody"], "no active key has this id or name: 'nobody'"),
        (["rotate", "nobody"], "no active key has this id or name"),
        (["create", "ada"], "there is an active key of that name"),
        (["revoke", "ada", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    keys: Keys, url: str, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys("create", "ada")
    before = keys("list", "--all")
    assert main(["keys", *arguments]) == 1
    assert complaint in capsys.readouterr().err
    assert keys("list", "--all") == before


def test_a_name_of_two_keys_is_not_guessed_at(keys: Keys, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = keys("create", "ada")
    newer = keys("rotate", "ada")
    assert main(["keys", "revoke", "ada"]) == 1
    assert f"say which: {made['id']}, {newer['id']}" in capsys.readouterr().err
    keys("revoke", made["id"])
    assert main(["keys", "revoke", made["id"]]) == 1
    assert "is revoked already" in capsys.readouterr().err
    keys("revoke", "ada")


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", ""],
        ["create", "a\nb"],
        ["create", "x" * 101],
        ["create", "x", "--expires", "2020-01-01"],
        ["create", "x", "--expires", "soon"],
        ["create", "x", "--expires", "9999-12-31T23:59:59-12:00"],
        ["create", "x", "--expires", "0001-01-01T00:00:00+12:00"],
        ["create", "x", "--expires", "999999w"],
        ["create", "x", "--rate-per-minute", "0"],
        ["create", "x", "--monthly-characters", "-1"],
        ["create", "x", "--monthly-characters", "9" * 17],
        ["create", "x", "--scope", "everything"],
        ["rotate", "x", "--overlap", "1.5h"],
        ["revoke"],
        [],
    ],
)
def test_wrong_usage_is_refused_before_anything_happens(arguments: list[str], url: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["keys", *arguments])
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--database-url", "postgresql+asyncpg://nllbd:hunter2@127.0.0.1:1/nllbd"]) == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1/nllbd: the database does not answer" in said
    assert "hunter2" not in said


def test_help_does_not_import_the_database() -> None:
    script = (
        "import sys; from nllbd import cli\n"
        "try: cli.main(['keys', '--help'])\n"
        "except SystemExit: sys.exit(any(name in sys.modules for name in ('sqlalchemy', 'aiohttp', 'alembic')))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
