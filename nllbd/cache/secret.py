"""The secret under which Redis holds translations: the configured one, or one made here and kept beside the state."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from nllbd import log

_FILE = "cache_secret"

logger = log.get_logger(__name__)


def load_secret(configured: str | None, folder: Path) -> bytes:
    """The configured secret, else the one in `folder`, made now if there is none. Blocking.

    Where the folder cannot be used the secret lasts as long as the process: safe, but nothing is found after a restart.
    """
    if configured is not None:
        return configured.encode()
    path = folder / _FILE
    try:
        if found := _read(path) or _make(path):
            return found
        raise OSError("the file is empty; remove it")
    except OSError as error:
        logger.warning("no cache_secret, and none can be kept; this run has its own", file=str(path), reason=str(error))
        return secrets.token_bytes(32)


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes().strip()
    return b""


def _make(path: Path) -> bytes:
    """Write a new one, for our eyes only, and in one step: of two daemons that start at once, one is the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
            logger.info("made a cache_secret; hosts that are to share one Redis cache must share it", file=str(path))
    finally:
        draft.unlink()
    return _read(path)
