"""Real PostgreSQL servers for tests: found on this machine, run as an unprivileged user, removed at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

USER = "nllb"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
fsync = off
shared_buffers = 16MB
max_connections = 30
wal_level = replica
hot_standby = on
wal_receiver_status_interval = 1s
"""
_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


def find_programs() -> Path | None:
    """The folder that holds initdb, pg_ctl and the others."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        folders.insert(0, Path(found).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


def _unprivileged() -> dict[str, object]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server: its data folder and port."""

    cluster: Cluster
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return url_of(self.port)

    def start(self) -> None:
        self.cluster.run("pg_ctl", "-D", self.folder, "-w", "-l", self.folder.with_suffix(".log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        with suppress(subprocess.CalledProcessError):
            self.cluster.run("pg_ctl", "-D", self.folder, "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """kill -9 of the postmaster; its children follow."""
        os.kill(self._pid(), signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP all of it: connections stand, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        self.cluster.run("pg_ctl", "-D", self.folder, "-w", "promote")

    def query(self, *statements: str) -> str:
        commands = [part for statement in statements for part in ("-c", statement)]
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres")
        return self.cluster.run("psql", *address, "-XAtq", *commands)

    def _pid(self) -> int:
        return int((self.folder / "postmaster.pid").read_text().splitlines()[0])

    def _signal_all(self, number: signal.Signals) -> None:
        import psutil

        postmaster = psutil.Process(self._pid())
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@dataclass
class Cluster:
    """A primary, and a replica of it when one is asked for."""

    programs: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="nllbd-pg-")))
    servers: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        if uid := _unprivileged().get("user"):
            os.chown(self.folder, int(str(uid)), -1)

    def make_primary(self) -> Server:
        server = self._server("primary")
        self.run("initdb", "-D", server.folder, "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--locale=C")
        with (server.folder / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(folder=self.folder) + f"port = {server.port}\n")
        server.start()
        return server

    def make_replica(self, primary: Server) -> Server:
        """A synchronous standby: from now on the primary's commits wait for it."""
        server = self._server("replica")
        address = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", USER)
        self.run("pg_basebackup", *address, "-D", server.folder, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
        with (server.folder / "postgresql.conf").open("a") as file:
            file.write(f"port = {server.port}\n")
        server.start()
        primary.query("alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
        end = time.monotonic() + 30
        while primary.query("select sync_state from pg_stat_replication") != "sync":
            assert time.monotonic() < end, "the replica did not become a synchronous standby"
            time.sleep(0.05)
        return server

    def run(self, program: str, *arguments: object) -> str:
        # to a file, not a pipe: a server that pg_ctl starts would hold the pipe open
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                [str(self.programs / program), *map(str, arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                check=False,
                **_unprivileged(),  # type: ignore[call-overload]
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if result.returncode != 0:
            raise subprocess.CalledProcessError(result.returncode, program, said)
        return said

    def remove(self) -> None:
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _server(self, name: str) -> Server:
        server = Server(self, self.folder / name, _free_port())
        self.servers.append(server)
        return server


def url_of(port: int, database: str = "postgres") -> str:
    return f"postgresql+asyncpg://{USER}@127.0.0.1:{port}/{database}"


@dataclass
class Proxy:
    """Stands between a client and `target`, a port that may change. `on_commit` is called when the server has
    answered a COMMIT; the answer is then dropped, and so is the connection.
    """

    target: int
    port: int = 0
    on_commit: Callable[[], None] | None = None
    num_dropped: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        ways = (self._pass(reader, there_writer, False), self._pass(there_reader, writer, True))
        tasks = [asyncio.ensure_future(way) for way in ways]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.close()
        there_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_answer and self.on_commit and _COMMITTED in data:
                    self.num_dropped += 1
                    act, self.on_commit = self.on_commit, None
                    act()
                    return
                writer.write(data)
                await writer.drain()
