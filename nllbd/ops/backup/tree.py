"""The state folder as a tar stream: small files that come and go while the daemon works, such as the usage journal's.

Taken before the database: a segment that is in both is booked once, by its id; what was booked between the two is in
the database.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from nllbd.ops.backup.restic import BackupError

_CHUNK = 1 << 20


def chunks_of(folder: Path, skip: Iterable[Path] = ()) -> Iterator[bytes]:
    """A tar stream of what is in `folder`, names relative to it. What vanishes meanwhile is left out; what grows is cut
    where it ended when it was opened. Symbolic links and special files stay out.
    """
    skipped = {path.absolute() for path in skip}
    for path in _walk(folder.absolute(), skipped):
        with suppress(FileNotFoundError):
            yield from _member(path, path.relative_to(folder.absolute()).as_posix())
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _walk(folder: Path, skipped: set[Path]) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for path in (folder / name for name in names):
        if path in skipped:
            continue
        if path.is_symlink():
            continue
        if path.is_dir():
            yield path
            yield from _walk(path, skipped)
        elif path.is_file():
            yield path


def _member(path: Path, name: str) -> Iterator[bytes]:
    archive = tarfile.TarFile(fileobj=io.BytesIO(), mode="w")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", closefd=True) if not path.is_dir() else _Folder(descriptor) as file:
        info = archive.gettarinfo(arcname=name, fileobj=cast("IO[bytes]", file))
        yield info.tobuf(tarfile.PAX_FORMAT)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield from _content(cast("IO[bytes]", file), info.size)


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and what fills the last block up; a file that shrank is filled with zeros."""
    left = size
    while left:
        chunk = file.read(min(left, _CHUNK)) or b"\0" * min(left, _CHUNK)
        left -= len(chunk)
        yield chunk
    yield b"\0" * (-size % tarfile.BLOCKSIZE)


class _Folder:
    """As much of a file as `gettarinfo` wants, for a folder."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.name = ""

    def fileno(self) -> int:
        return self._descriptor

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def put(chunks: Iterable[bytes], folder: Path) -> None:
    """Unpack a stream into `folder`: plain files and folders below it, owners by name. Raises BackupError, OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Reader(chunks)), mode="r|") as archive:
            for member in archive:
                _put_member(archive, member, folder)
    except tarfile.TarError as error:
        raise BackupError(f"the state folder's stream is damaged: {error}") from None


def _put_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    if ".." in Path(member.name).parts or member.name.startswith("/"):
        raise BackupError(f"the state folder's stream leads out of it: {member.name}")
    path = folder / member.name
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            shutil.copyfileobj(content, file)
    else:
        return
    path.chmod(member.mode & 0o777)
    with suppress(LookupError, PermissionError):  # a name that this host does not know, or we are not root
        os.chown(path, pwd.getpwnam(member.uname).pw_uid, grp.getgrnam(member.gname).gr_gid)


class _Reader:
    """Chunks as a file that can be read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
