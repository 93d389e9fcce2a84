"""The usage journal: what was booked and is not in the database yet, in files of the state folder. Knows no database.

Layout: `<folder>/<instance>/<segment>.usage`, one folder a daemon, held by a lock for as long as the daemon lives. A
segment is one batch: its name is the batch's id, so what a crash leaves behind is booked under the same id and counts
once. Each record is a line, `<crc32> <JSON array>`; lines that do not match their sum (the last one after a crash) are
skipped. The folder of a daemon that is gone is taken over by the next one that starts.

A record is handed to the kernel before `append` returns: kill -9 loses nothing. It is forced to the disk by `sync`,
which the meter calls only while the database is away; with the database there, it holds all but the last moments.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import msgspec

from nllbd.store.records import UsageEntry

_SUFFIX = ".usage"
_LOCK = "lock"
_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(tuple[str, date, int, int, int, int, int]).decode


def encode(entry: UsageEntry) -> bytes:
    """One record, its line break included."""
    payload = _ENCODE(
        (
            entry.account,
            entry.day,
            entry.characters,
            entry.requests,
            entry.segments,
            entry.source_tokens,
            entry.target_tokens,
        )
    )
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def decode(content: bytes) -> tuple[list[UsageEntry], int]:
    """The records of a segment, and how many lines were not records; a torn last line, as a crash leaves it, aside."""
    entries = []
    num_damaged = 0
    *lines, last = content.split(b"\n")
    for line in filter(None, (*lines, last)):
        try:
            if int(line[:8], 16) != zlib.crc32(line[9:]) or line[8:9] != b" ":
                raise ValueError
            entries.append(UsageEntry(*_DECODE(line[9:])))
        except (ValueError, msgspec.MsgspecError):
            num_damaged += line is not last
    return entries, num_damaged


class Journal:
    """This daemon's segments: one that is written to, and sealed ones. `append` and `seal` are quick; the rest is for
    a thread. All raise OSError.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._file: int | None = None
        self._is_torn = False
        self.segment = ""
        self.size = 0

    @classmethod
    def open(cls, root: Path) -> tuple[Journal, list[str]]:
        """A journal of our own under `root`, and the sealed segments that daemons now gone have left."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(root / _LOCK):
            folder = root / uuid.uuid4().hex
            folder.mkdir(mode=0o700)
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            journal = cls(folder, lock)
            for other in sorted(root.iterdir()):
                if other != folder and other.is_dir():
                    _take_over(other, folder)
        return journal, journal._sealed()

    def append(self, record: bytes) -> None:
        """Write one record. After an error the segment on disk lacks it, and no later record is harmed."""
        if self._file is None:
            self._start()
        assert self._file is not None
        if self._is_torn:
            record = b"\n" + record
        written = os.write(self._file, record)
        self._is_torn = written != len(record)
        self.size += written
        if self._is_torn:
            raise OSError("the disk took only a part of the record")

    def seal(self) -> str:
        """End the segment that is written to; its id. The next record begins another."""
        sealed = self.segment
        if self._file is not None:
            os.close(self._file)
        self._file, self.segment, self.size, self._is_torn = None, "", 0, False
        return sealed

    def read(self, segment: str) -> tuple[list[UsageEntry], int]:
        """The records of a sealed segment, and how many lines were damaged."""
        return decode(self._path(segment).read_bytes())

    def shrink(self, segment: str, entries: Iterable[UsageEntry]) -> None:
        """Put `entries`, which sum up what the segment holds, in its place; on the disk when this returns."""
        draft = self._folder / f"{segment}.draft"
        with draft.open("wb") as file:
            file.writelines(map(encode, entries))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path(segment))

    def size_of(self, segment: str) -> int:
        return self._path(segment).stat().st_size

    def drop(self, segment: str) -> None:
        """Forget a segment that is booked."""
        self._path(segment).unlink(missing_ok=True)

    def set_aside(self, segment: str) -> Path:
        """Keep a segment for a person to look at: the database will not take it, or it has lines that are no records
        to this version. Returns where it is then.
        """
        kept = self._folder.parent / f"{segment}.kept"
        self._path(segment).replace(kept)
        return kept

    def sync(self) -> None:
        """See that the segment that is written to is on the disk."""
        if self._file is not None:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the folder, and remove it if nothing is left in it."""
        if self._file is not None:
            self.seal()
        if not self._sealed():
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _start(self) -> None:
        segment = uuid.uuid4().hex
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(segment), flags, 0o600)
        self.segment = segment

    def _sealed(self) -> list[str]:
        """Oldest first."""
        files = [file for file in self._folder.glob(f"*{_SUFFIX}") if file.stem != self.segment]
        return [file.stem for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))]

    def _path(self, segment: str) -> Path:
        return self._folder / f"{segment}{_SUFFIX}"


def _take_over(other: Path, folder: Path) -> None:
    """Move the segments of a daemon that is gone into `folder`; leave those of a living one alone."""
    try:
        lock = os.open(other / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        lock = None
    try:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in other.glob(f"*{_SUFFIX}"):
            file.rename(folder / file.name)
        shutil.rmtree(other, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
