"""systemd's journal as a stream of log lines: each line is an entry whose fields can be searched for.

    journalctl --unit=nllbd NLLBD_REQUEST_ID=9f2c…        journalctl --unit=nllbd --priority=warning

Follows https://systemd.io/JOURNAL_NATIVE_PROTOCOL. The message stays the line as it is; what it says in JSON comes
besides, each value as a field NLLBD_<NAME>. Used only where the journal is what our standard error goes to.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TextIO, cast

import orjson

SOCKET = "/run/systemd/journal/socket"
_PREFIX = "NLLBD_"
_MAX_BYTES = 1 << 16  # of an entry that the kernel found too long
_MAX_VALUE_CHARS = 2000
_UNFIT = re.compile(r"[^A-Z0-9_]")
#: As syslog numbers them.
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def journal_stream(environ: Mapping[str, str], file: int, address: str = SOCKET) -> TextIO | None:
    """A stream to the journal if the descriptor `file` leads there (JOURNAL_STREAM says so), else None."""
    try:
        device, inode = map(int, environ.get("JOURNAL_STREAM", "").split(":"))
        status = os.fstat(file)
    except (ValueError, OSError):
        return None
    if (status.st_dev, status.st_ino) != (device, inode):
        return None
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.connect(address)
    except OSError:
        sender.close()
        return None
    return cast(TextIO, JournalStream(sender))


class JournalStream(io.TextIOBase):
    """Takes whole lines, one or many at once. Blocks while the journal is busy: it is for a thread of its own."""

    def __init__(self, sender: socket.socket) -> None:
        super().__init__()
        self._sender = sender

    def write(self, text: str, /) -> int:
        """Raises OSError when the journal does not take it."""
        for line in text.splitlines():
            self._send(_entry(line))
        return len(text)

    def close(self) -> None:
        self._sender.close()
        super().close()

    def _send(self, entry: bytes) -> None:
        try:
            self._sender.send(entry)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._sender.send(_field("MESSAGE", entry[:_MAX_BYTES].decode("utf-8", "replace")))


def _entry(line: str) -> bytes:
    said: Any = None
    with contextlib.suppress(orjson.JSONDecodeError):
        said = orjson.loads(line)
    fields = list(_fields(said)) if isinstance(said, dict) else []
    return b"".join([_field("MESSAGE", line), _field("SYSLOG_IDENTIFIER", "nllbd"), *fields])


def _fields(said: Mapping[str, Any]) -> Iterator[bytes]:
    yield _field("PRIORITY", str(_PRIORITIES.get(str(said.get("level")), 6)))
    for name, value in said.items():
        if value is not None and not isinstance(value, list | dict):
            yield _field(_spelled(name), str(value)[:_MAX_VALUE_CHARS])


@lru_cache(maxsize=1024)
def _spelled(name: str) -> str:
    return _PREFIX + _UNFIT.sub("_", name.upper())


def _field(name: str, value: str) -> bytes:
    """Values with line breaks have their length before them."""
    if "\n" not in value:
        return f"{name}={value}\n".encode("utf-8", "replace")
    content = value.encode("utf-8", "replace")
    return b"%b\n%b%b\n" % (name.encode(), len(content).to_bytes(8, "little"), content)
