"""PostgreSQL: a consistent dump with the facts of the very same snapshot, and back. Uses pg_dump and pg_restore.

Passwords go to them in a file (PGPASSFILE), never by environment or command line.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from nllbd.errors import ConfigError
from nllbd.ops.backup.facts import DIGESTS, SCALARS, read_facts
from nllbd.ops.backup.restic import BackupError
from nllbd.store.postgresql import connect, spread_hosts

_CHUNK = 1 << 20
#: Whom to trust and who we are: libpq's names, the same for pg_dump and asyncpg.
_TLS = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_ADDRESS = re.compile(r"\[?(.*?)\]?(?::(\d+))?")
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """A database server as libpq names it. `options`: host, port, user, dbname, sslmode …"""

    options: dict[str, str]
    password: str = ""

    @classmethod
    def from_url(cls, url: str) -> Server:
        """`postgresql+asyncpg://user:password@a:5432,b/name?sslmode=verify-full`, or `?host=a:5432&host=b`.

        Of several the one that takes writes, as the daemon does: a standby knows no snapshot that it could share.
        """
        parts = urlsplit(spread_hosts(url))
        query = parse_qs(parts.query)
        named = query.pop("host", [])
        hosts = [_host_and_port(host) for host in named] if not any(it.startswith("/") for it in named) else []
        options = {
            "host": ",".join(host for host, _ in hosts) or (named[0] if named else parts.hostname or ""),
            "port": ",".join(port for _, port in hosts) or str(parts.port or query.pop("port", ["5432"])[0]),
            "user": unquote(parts.username or ""),
            "dbname": unquote(parts.path.strip("/")),
            "sslmode": (query.get("ssl") or query.get("sslmode") or [""])[0],
            "target_session_attrs": (query.get("target_session_attrs") or ["read-write" * (len(hosts) > 1)])[0],
            **{name: query[name][0] for name in _TLS if name in query},
        }
        return cls({name: value for name, value in options.items() if value}, unquote(parts.password or ""))

    @property
    def conninfo(self) -> str:
        """For `-d`; without the password."""
        quoted = {name: value.replace("\\", r"\\").replace("'", r"\'") for name, value in self.options.items()}
        return " ".join(f"{name}='{value}'" for name, value in quoted.items())

    @contextmanager
    def environ(self) -> Iterator[dict[str, str]]:
        """An environment in which libpq finds the password."""
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with TemporaryDirectory(prefix="nllbd-pg-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            file = Path(folder) / "pgpass"
            file.touch(mode=0o600)
            escaped = self.password.replace("\\", r"\\").replace(":", r"\:")
            file.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
            yield base | {"PGPASSFILE": str(file)}


def _host_and_port(address: str) -> tuple[str, str]:
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    return found[1], found[2] or "5432"


class PostgresDump:
    """A dump as of one moment, with its facts. Iterate `chunks` once, inside `with`. Raises BackupError."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.facts: dict[str, Any] = {}

    def chunks(self) -> Iterator[bytes]:
        """The facts are there once the first chunk is."""
        with asyncio.Runner() as runner:
            connection = runner.run(_connected(self._server))
            try:
                snapshot, self.facts = runner.run(_snapshot_and_facts(connection))
                yield from self._dumped(snapshot)
            finally:
                runner.run(connection.close(timeout=_CONNECT_S))

    def _dumped(self, snapshot: str) -> Iterator[bytes]:
        """Uncompressed, so that restic finds what did not change."""
        command = [program("pg_dump"), "-d", self._server.conninfo, "--no-password", "--format=custom", "--compress=0"]
        command += ["--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
        with (
            self._server.environ() as environ,
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump,
        ):
            assert dump.stdout is not None
            assert dump.stderr is not None
            try:
                while chunk := dump.stdout.read(_CHUNK):
                    yield chunk
                if dump.wait() != 0:
                    raise BackupError(f"pg_dump: {dump.stderr.read().decode('utf-8', 'replace').strip()}")
            finally:
                if dump.poll() is None:
                    dump.kill()


async def _connected(server: Server) -> Any:
    try:
        import asyncpg  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs asyncpg: pip install 'nllbd[postgresql]'") from None
    options = server.options
    dsn = "postgresql://?" + "&".join(f"{name}={value}" for name, value in options.items() if name != "dbname")
    try:
        return await connect(
            host=options.get("host", "").split(","),
            port=[int(port) for port in options.get("port", "5432").split(",")],
            user=options.get("user"),
            database=options.get("dbname"),
            password=server.password or None,
            timeout=_CONNECT_S,
            **{name: options[name] for name in ("sslmode", "target_session_attrs", *_TLS) if name in options},
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise BackupError(f"PostgreSQL ({dsn.partition('?')[2]}) cannot be reached: {error}") from None


async def _snapshot_and_facts(connection: Any) -> tuple[str, dict[str, Any]]:
    """Open a transaction whose view of the data pg_dump will share, for as long as the connection lives."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
    return snapshot, await _facts(connection)


async def _facts(connection: Any) -> dict[str, Any]:
    answers = {query: await connection.fetch(query) for query in (*SCALARS.values(), *DIGESTS.values())}
    return read_facts(lambda query: answers[query])


def facts_of(server: Server) -> dict[str, Any]:
    """The facts of a database as it is now. Raises BackupError."""

    async def ask() -> dict[str, Any]:
        connection = await _connected(server)
        try:
            return await _facts(connection)
        finally:
            await connection.close(timeout=_CONNECT_S)

    return asyncio.run(ask())


def num_tables(server: Server) -> int:
    """How many tables of ours are there. Raises BackupError."""

    async def ask() -> int:
        connection = await _connected(server)
        try:
            query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()"
            return int(await connection.fetchval(query))
        finally:
            await connection.close(timeout=_CONNECT_S)

    return asyncio.run(ask())


def put(chunks: Iterator[bytes], server: Server, *, replace: bool) -> None:
    """Load a dump: all of it or nothing. `replace`: tables that are there go first. Raises BackupError."""
    command = [program("pg_restore"), "-d", server.conninfo, "--no-password", "--single-transaction"]
    command += ["--exit-on-error", "--no-owner", "--no-privileges", *(["--clean", "--if-exists"] if replace else [])]
    with (
        server.environ() as environ,
        subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as restore,
    ):
        assert restore.stdin is not None
        assert restore.stderr is not None
        try:
            for chunk in chunks:
                restore.stdin.write(chunk)
            restore.stdin.close()
        except BrokenPipeError:
            pass  # it says why below
        except BaseException:
            restore.kill()  # before it sees the end: a dump that was cut changes nothing
            raise
        complaint = restore.stderr.read().decode("utf-8", "replace").strip()
        if restore.wait() != 0:
            raise BackupError(f"pg_restore: {complaint}")


def program(name: str) -> str:
    """Where PostgreSQL's program is. Raises ConfigError."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: int(it.parent.name), reverse=True)
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *map(str, folders)))
    found = shutil.which(name, path=path)
    if found is None:
        package = "postgresql" if name in ("initdb", "postgres") else "postgresql-client"
        raise ConfigError(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found
