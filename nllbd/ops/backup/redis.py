"""What a Redis holds, as an RDB file: by replication (SYNC), which streams one consistent state from wherever Redis
runs; where that is not allowed, by BGSAVE, awaited, and the file that it wrote on this host.

Speaks the protocol itself: the password goes over the socket, not into the command line or environment of redis-cli.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nllbd.ops.backup.restic import BackupError
from nllbd.redis_wire import FAILURES, make_pool

_TIMEOUT_S = 60.0  # without a word; while it forks and saves, Redis sends line breaks
_SAVE_S = 600.0
_POLL_S = 0.05
_CHUNK = 1 << 20
_MAGIC = b"REDIS"
DUMP = "dump.rdb"  # unless its settings say otherwise


class RedisRefusedError(BackupError):
    """Redis answered with an error."""


@dataclass(frozen=True, slots=True, repr=False)
class RedisServer:
    """Where a Redis is. `path`: its unix socket, "" for host and port."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = ""
    is_tls: bool = False
    ca_file: str = ""

    @classmethod
    def from_url(cls, url: str) -> RedisServer:
        """`redis://`, `rediss://`, `unix://` and their `+sentinel` forms: the master that the Sentinels name."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if parts.scheme.endswith("+sentinel"):
            host, port = _master(url)
            username, _, password = parts.netloc.rpartition("@")[0].partition(":")
        else:
            host, port = parts.hostname or "localhost", parts.port or 6379
            username, password = parts.username or "", parts.password or query.get("password", [""])[0]
        return cls(
            host,
            port,
            unquote(parts.path) if parts.scheme == "unix" else "",
            unquote(username),
            unquote(password),
            parts.scheme.startswith("rediss"),
            query.get("ssl_ca_certs", [""])[0],
        )


def _master(url: str) -> tuple[str, int]:
    async def ask() -> tuple[str, int]:
        host, port = await make_pool(url).get_master_address()
        return str(host), int(port)

    try:
        return asyncio.run(ask())
    except FAILURES as error:
        raise BackupError(f"Redis: the Sentinels name no master: {error}") from None


class RedisCopy:
    """The state of one Redis. Iterate `chunks` once; `details` are there from the start. Raises BackupError."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        with closing(_Link(server)) as link:
            self.details = {
                "appendonly": link.setting("appendonly") == "yes",
                "dbfilename": link.setting("dbfilename") or DUMP,
                "version": link.info("redis_version"),
            }

    def chunks(self) -> Iterator[bytes]:
        first = True
        for chunk in self._streamed():
            if first and not chunk.startswith(_MAGIC):
                raise BackupError("Redis sent something that is no RDB file")
            first = False
            yield chunk
        if first:
            raise BackupError("Redis sent an empty RDB file")

    def _streamed(self) -> Iterator[bytes]:
        with closing(_Link(self._server)) as link:
            try:
                length = link.sync()
            except RedisRefusedError as refusal:
                chunks = self._saved(refusal)
            else:
                chunks = link.read_exactly(length)
            yield from chunks

    def _saved(self, refusal: RedisRefusedError) -> Iterator[bytes]:
        """The way of BGSAVE."""
        with closing(_Link(self._server)) as link:
            path = link.save()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise BackupError(
                f"Redis allows no replication ({refusal.message}), and {path}, which BGSAVE wrote, cannot be read here "
                f"({error.strerror}): give one that may, as the credential backup_redis_url, or run this there"
            ) from None


class _Link:
    """One connection, one command at a time."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = _connected(server)
        self._file = self._socket.makefile("rb", buffering=1 << 16)
        if server.password:
            names = [server.username] if server.username else []
            self.call("AUTH", *names, server.password)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def call(self, *words: str) -> Any:
        """One command's answer: str, int, None or a list. Raises RedisRefusedError, BackupError."""
        self._send(*words)
        return self._answer()

    def setting(self, name: str) -> str:
        """CONFIG GET; "" where that is not allowed."""
        try:
            found = self.call("CONFIG", "GET", name)
        except RedisRefusedError:
            return ""
        return str(found[1]) if found else ""

    def info(self, name: str) -> str:
        lines = str(self.call("INFO")).splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), "")

    def sync(self) -> int:
        """Have this connection treated as a replica; how many bytes of RDB follow. Raises RedisRefusedError."""
        self._send("SYNC")
        while (line := self._line()) == b"":  # line breaks keep the connection alive while Redis saves
            continue
        if not line.startswith(b"$") or not line[1:].isdigit():
            raise RedisRefusedError(line.decode("utf-8", "replace")[:200])
        return int(line[1:])

    def save(self) -> Path:
        """BGSAVE, and wait until it has ended well: the file that it wrote. The save that may be running already began
        before this call, so it is awaited first and another one is asked for.
        """
        folder, name = self.setting("dir"), self.setting("dbfilename")
        if not folder or not name:
            raise BackupError(
                "Redis allows its user neither SYNC nor CONFIG GET dir: the credential "
                "backup_redis_url is for the URL of one that may"
            )
        end = time.monotonic() + _SAVE_S
        self._await(lambda: self.info("rdb_bgsave_in_progress") == "0", end)
        saves = self._saves()
        self.call("BGSAVE")
        self._await(lambda: self.info("rdb_bgsave_in_progress") == "0" and self._saves() != saves, end)
        if self.info("rdb_last_bgsave_status") != "ok":
            raise BackupError("Redis: BGSAVE failed; its log says why")
        return Path(folder) / name

    def read_exactly(self, length: int) -> Iterator[bytes]:
        while length:
            chunk = self._file.read(min(length, _CHUNK))
            if not chunk:
                raise BackupError("Redis closed the connection within its RDB file")
            length -= len(chunk)
            yield chunk

    def _saves(self) -> tuple[str, str]:
        """What changes when a save has ended: LASTSAVE has seconds only, the count of saves tells two in one apart."""
        return str(self.call("LASTSAVE")), self.info("rdb_saves")

    @staticmethod
    def _await(condition: Callable[[], bool], end: float) -> None:
        while not condition():
            if time.monotonic() > end:
                raise BackupError(f"Redis: BGSAVE took more than {_SAVE_S:.0f} s")
            time.sleep(_POLL_S)

    def _send(self, *words: str) -> None:
        encoded = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)]
        try:
            self._socket.sendall(b"".join(parts))
        except OSError as error:
            raise BackupError(f"Redis: {error}") from None

    def _line(self) -> bytes:
        try:
            line = self._file.readline()
        except OSError as error:
            raise BackupError(f"Redis: {error}") from None
        if not line.endswith(b"\n"):
            raise BackupError("Redis closed the connection")
        return line.rstrip(b"\r\n")

    def _answer(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:].decode("utf-8", "replace")
        if kind == b"-":
            raise RedisRefusedError(f"Redis: {rest}")
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"$" and int(rest) >= 0:
            return b"".join(self.read_exactly(int(rest) + 2))[:-2].decode("utf-8", "replace")
        return None if kind == b"$" else rest


def _connected(server: RedisServer) -> socket.socket:
    try:
        if server.path:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(_TIMEOUT_S)
            link.connect(server.path)
            return link
        link = socket.create_connection((server.host, server.port), timeout=_TIMEOUT_S)
        if not server.is_tls:
            return link
        context = ssl.create_default_context(cafile=server.ca_file or None)
        return context.wrap_socket(link, server_hostname=server.host)
    except OSError as error:
        raise BackupError(f"Redis ({server.path or f'{server.host}:{server.port}'}): {error}") from None


def put(chunks: Iterator[bytes], folder: Path, *, appendonly: bool, dbfilename: str = DUMP) -> None:
    """Lay an RDB file into the folder of a Redis that does not run, so that it starts from it; owner as the folder's.

    With appendonly Redis reads no snapshot: it begins from the base file that its manifest names. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    place = folder / "appendonlydir" if appendonly else folder
    place.mkdir(exist_ok=True, mode=0o750)
    for old in place.glob("appendonly.aof.*"):
        old.unlink()
    name = "appendonly.aof.1.base.rdb" if appendonly else Path(dbfilename).name
    draft = place / f"{name}.restored"
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o640), "wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place / name)
    if appendonly:
        (place / "appendonly.aof.manifest").write_text(f"file {name} seq 1 type b\n", encoding="ascii")
    owner = folder.stat()
    for path in (place, *place.glob("appendonly.aof.*"), *(() if appendonly else (folder / name,))):
        os.chown(path, owner.st_uid, owner.st_gid)
