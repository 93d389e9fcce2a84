"""A consistent copy of an SQLite database in use, by SQLite's backup API, and back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from nllbd.ops.backup.facts import read_facts
from nllbd.ops.backup.restic import BackupError

#: Larger databases are copied to a file that loses its name at once, smaller ones to memory.
_IN_MEMORY_BYTES = 256 << 20
_CHUNK = 1 << 20
_BUSY_S = 10.0


class SqliteCopy:
    """A copy of `path` as of one moment, with its facts. `folder` is for large ones. Raises BackupError."""

    def __init__(self, path: Path, folder: Path) -> None:
        try:
            self._file, self.facts = _copied(path, folder)
        except sqlite3.Error as error:
            raise BackupError(f"{path}: cannot be read as a database: {error}") from None
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror or error}") from None

    def chunks(self) -> Iterator[bytes]:
        with closing(os.fdopen(self._file, "rb")) as file:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                yield chunk


def _copied(path: Path, folder: Path) -> tuple[int, dict[str, Any]]:
    """An open file without a name that holds the copy, and the copy's facts."""
    if path.stat().st_size <= _IN_MEMORY_BYTES:
        return _copied_to_memory(path)
    return _copied_to_file(path, folder / f"database.{os.getpid()}")


def _copied_to_memory(path: Path) -> tuple[int, dict[str, Any]]:
    with closing(_opened(path)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        facts = read_facts(copy.execute)
        descriptor = os.memfd_create("database")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(copy.serialize())
    return descriptor, facts


def _copied_to_file(path: Path, target: Path) -> tuple[int, dict[str, Any]]:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(_opened(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            facts = read_facts(copy.execute)
        return os.open(target, os.O_RDONLY | os.O_CLOEXEC), facts
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_S)


def check(path: Path) -> dict[str, Any]:
    """The facts of a database that nobody uses. Raises BackupError if it is damaged."""
    try:
        with closing(sqlite3.connect(path)) as database:
            verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise BackupError(f"{path}: damaged: {verdict}")
            return read_facts(database.execute)
    except sqlite3.Error as error:
        raise BackupError(f"{path}: cannot be read as a database: {error}") from None


def set_aside(path: Path, kept: Path) -> None:
    """Rename a database that nobody uses, its write-ahead log with it. Raises OSError."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    path.rename(kept)


def put(chunks: Iterator[bytes], path: Path) -> None:
    """Make `chunks` the database at `path`, which nobody may use meanwhile; an interrupted call changes nothing.

    Owner and group become those of the folder. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.restored")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        owner = path.parent.stat()
        with suppress(PermissionError):
            os.chown(draft, owner.st_uid, owner.st_gid)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
