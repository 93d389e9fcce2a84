"""One file from a hub into a folder: continued where it was cut, checked against the hub's checksum, then named."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nllbd.errors import CheckpointError, NotReady
from nllbd.pull.hub import Hub, HubFile, HubModel

#: Attempts in a row that bring nothing; one that brings anything starts the count anew.
MAX_FRUITLESS = 5
_FIRST_PAUSE_S = 0.5
_PART = ".part"
_BLOCK = 1 << 22


class Watch(Protocol):
    """Told of each chunk; may end the download by raising."""

    def __call__(self, num_bytes: int) -> None: ...


def fetch(
    hub: Hub, model: HubModel, file: HubFile, folder: Path, watch: Watch, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Bring `file` into `folder`, unless it is there already.

    Raises CheckpointError (checksum), NotReady (the connection fails again and again), and OSError as it comes.
    """
    target = folder / file.name
    if target.exists():
        watch(file.size)
        return
    part = folder / (file.name + _PART)
    watch(_size(part))
    fruitless = 0
    while (before := _size(part)) < file.size:
        reason = _continue(hub, model, file, part, watch)
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless >= MAX_FRUITLESS:
            raise NotReady(f"{file.name}: {reason}; what is here is kept, and the next pull continues it")
        if fruitless:
            sleep(_FIRST_PAUSE_S * 2 ** (fruitless - 1))
    _check(part, file)
    part.rename(target)


def _continue(hub: Hub, model: HubModel, file: HubFile, part: Path, watch: Watch) -> str:
    """Append what the hub sends. Returns why it ended."""
    try:
        with part.open("ab") as stream, hub.read(model, file, stream.tell()) as (begin, chunks):
            if begin != stream.tell():
                watch(begin - stream.tell())
                stream.seek(begin)
                stream.truncate()  # the hub does not continue files: from the start, then
            for chunk in chunks:
                stream.write(
                    chunk[: file.size + 1 - stream.tell()]
                )  # a longer file fails the check; it need not fill the disk
                watch(len(chunk))
                if stream.tell() > file.size:
                    break
            stream.flush()
            os.fsync(stream.fileno())
    except ConnectionError as error:
        return str(error)
    return "the hub sent less than it said"


def _check(part: Path, file: HubFile) -> None:
    """Raise CheckpointError, and delete the file, unless it is what the hub says."""
    if file.sha256:
        digest, expected = hashlib.sha256(), file.sha256
    else:
        digest, expected = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False), file.git_sha1 or ""
    with part.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected.lower() or _size(part) != file.size:
        part.unlink()
        raise CheckpointError(
            f"{file.name}: the checksum is not what the hub says; deleted, pull again. If it stays so, something "
            "between here and the hub alters files"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
