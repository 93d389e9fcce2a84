"""Sentinels that name the master: before, during and after a failover, slow, gone, out of date, behind passwords."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port
from nllbd.redis_client import RedisLink, RedisProblem
from nllbd.redis_sentinel import ASK_S, make_sentinel_pool
from nllbd.redis_wire import CONNECT_TIMEOUT_S, make_pool

WITHIN_S = 30.0


@dataclass(frozen=True)
class Sentinel:
    port: int

    def ask(self, *words: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65_536)

    @property
    def master(self) -> str:
        return self.ask("sentinel", "get-master-addr-by-name", "mymaster").decode()

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("PING").startswith((b"+PONG", b"-NOAUTH"))
        return False


StartSentinel = Callable[..., Sentinel]


@pytest.fixture
def start_sentinel(tmp_path: Path) -> Iterator[StartSentinel]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(master: Any, *lines: str) -> Sentinel:
        port, folder = free_port(), tmp_path / f"sentinel-{len(processes)}"
        folder.mkdir()
        monitor = f"sentinel monitor mymaster 127.0.0.1 {master.port} 1"
        (folder / "s.conf").write_text("\n".join([f"port {port}", f"dir {folder}", monitor, *lines, ""]))
        program = shutil.which("redis-server", path="/usr/bin:/usr/sbin:/usr/local/bin") or "redis-server"
        processes.append(subprocess.Popen([program, str(folder / "s.conf"), "--sentinel"], stdout=subprocess.DEVNULL))
        sentinel = Sentinel(port)
        end = time.monotonic() + WITHIN_S
        while not sentinel.answers():
            assert time.monotonic() < end, "the Sentinel does not answer"
            time.sleep(0.01)
        return sentinel

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Takes connections and never says a word: what a machine that hangs looks like."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def say() -> AsyncIterator[Callable[[list[bytes]], Awaitable[int]]]:
    """Factory: the port of something that gives the first answer of a list whenever it is asked for a master."""
    servers: list[asyncio.Server] = []

    async def start(answers: list[bytes]) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while asked := await reader.read(4096):
                    writer.write(answers[0] if b"SENTINEL" in asked else b"+OK\r\n")
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


def master_reply(port: int, epoch: int, flags: str = "master") -> bytes:
    """What `SENTINEL MASTER` says, as far as it matters."""
    facts = {"ip": "127.0.0.1", "port": str(port), "flags": flags, "config-epoch": str(epoch)}
    words = [word for pair in facts.items() for word in pair]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


async def discover(*ports: int) -> tuple[str, int]:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    found: tuple[str, int] = await make_pool(f"redis+sentinel://{hosts}/mymaster").get_master_address()
    return found


async def test_the_master_and_its_successor(start_redis: Any, start_sentinel: StartSentinel, eventually: Any) -> None:
    master = start_redis()
    replica = start_redis(replicaof=f"127.0.0.1 {master.port}")
    sentinel = start_sentinel(master)
    link = RedisLink(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/0", timeout_s=1.0)
    link.start()
    try:
        assert await link.wait_up(WITHIN_S)
        assert await link.call("SET", "a", "1") == b"OK"
        assert f"tcp_port:{master.port}".encode() in await link.call("INFO")
        await eventually(lambda: sentinel.ask("sentinel", "replicas", "mymaster").startswith(b"*1"))
        await eventually(lambda: sentinel.ask("sentinel", "failover", "mymaster") == b"+OK\r\n")
        await eventually(lambda: f"${len(str(replica.port))}\r\n{replica.port}" in sentinel.master)
        master.kill()
        await _until_port(link, replica.port)
        assert await link.call("SET", "a", "2") == b"OK"
    finally:
        await link.close()


async def test_a_master_that_was_demoted_is_left(start_redis: Any, say: Any) -> None:
    """It lives on as a replica, and connections to it stand: the first refused write ends them."""
    old, new = start_redis(), start_redis()
    opinions = [master_reply(old.port, 1)]
    link = RedisLink(f"redis+sentinel://127.0.0.1:{await say(opinions)}/mymaster", timeout_s=1.0)
    link.start()
    try:
        assert await link.wait_up(WITHIN_S)
        assert await link.call("SET", "a", "1") == b"OK"
        opinions[0] = master_reply(new.port, 2)
        assert await link.call("REPLICAOF", "127.0.0.1", str(new.port)) == b"OK"
        await _until_port(link, new.port)
    finally:
        await link.close()


async def _until_port(link: RedisLink, port: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await _writes_to(link, port):
            await link.wait_up(0.1)


async def _writes_to(link: RedisLink, port: int) -> bool:
    try:
        await link.call("SET", "probe", "1")
        return f"tcp_port:{port}".encode() in await link.call("INFO", "server")
    except RedisProblem:
        return False


async def test_sentinels_that_hang_or_are_gone_cost_no_more_than_the_others_wait(
    start_redis: Any, start_sentinel: StartSentinel, silent_port: int
) -> None:
    assert ASK_S < CONNECT_TIMEOUT_S / 2, "time is left to connect to the master"
    master = start_redis()
    sentinel = start_sentinel(master)
    began = time.monotonic()
    assert await discover(silent_port, silent_port, free_port(), sentinel.port) == ("127.0.0.1", master.port)
    assert time.monotonic() - began < CONNECT_TIMEOUT_S
    hosts = f"127.0.0.1:{silent_port},127.0.0.1:{sentinel.port}"
    link = RedisLink(f"redis+sentinel://{hosts}/mymaster", timeout_s=1.0)
    link.start()
    assert await link.wait_up(WITHIN_S)
    await link.close()


async def test_the_latest_failover_counts_whoever_is_asked_first(say: Any) -> None:
    old, new = await say([master_reply(1, epoch=3)]), await say([master_reply(2, epoch=4)])
    assert await discover(old, new) == await discover(new, old) == ("127.0.0.1", 2)


@pytest.mark.parametrize("flags", ["master,s_down", "s_down,master,o_down", "master,disconnected"])
async def test_a_master_that_is_down_is_none(say: Any, flags: str) -> None:
    down, up = await say([master_reply(1, 9, flags)]), await say([master_reply(2, 1)])
    assert await discover(down, up) == ("127.0.0.1", 2)
    with pytest.raises(ConnectionError, match="mymaster"):
        await discover(down)


@pytest.mark.parametrize("answer", [b"$-1\r\n", b"*-1\r\n", b"-ERR No such master\r\n", b"HTTP/1.1 400\r\n\r\n", b""])
async def test_what_a_broken_sentinel_says_is_no_answer(say: Any, answer: bytes) -> None:
    strange, good = await say([answer]), await say([master_reply(2, 1)])
    assert await discover(strange, good) == ("127.0.0.1", 2)


async def test_passwords_of_both(start_redis: Any, start_sentinel: StartSentinel, tmp_path: Path) -> None:
    acl = tmp_path / "users.acl"
    acl.write_text("user default off\nuser cache on >p@ss ~* +@all\nuser sentinel on >watch +@all &*\n")
    master = start_redis(aclfile=str(acl))
    sentinel = start_sentinel(
        master,
        "sentinel auth-user mymaster sentinel",
        "sentinel auth-pass mymaster watch",
        "user default off",
        "user daemon on >ask +sentinel|master +ping +client",
    )
    link = RedisLink(
        f"redis+sentinel://cache:p%40ss@127.0.0.1:{sentinel.port}/mymaster"
        "?sentinel_username=daemon&sentinel_password=ask",
        timeout_s=1.0,
    )
    link.start()
    assert await link.wait_up(WITHIN_S)
    assert await link.call("SET", "a", "1") == b"OK"
    await link.close()


def test_what_a_url_says() -> None:
    pool = make_pool(
        "rediss+sentinel://user:p%40ss@one:1,two,[::1]:3/my%2Fmaster/3"
        "?sentinel_username=us&sentinel_password=w%26d&ssl_ca_certs=/ca.pem"
    )
    given = pool.connection_kwargs
    assert (pool.service_name, given["username"], given["password"], given["db"]) == ("my/master", "user", "p@ss", 3)
    assert given["ssl_ca_certs"] == "/ca.pem"
    assert "SSL" in pool.connection_class.__name__
    asked = pool.sentinel_manager.addresses
    assert [(it["host"], it["port"]) for it in asked] == [("one", 1), ("two", 26379), ("::1", 3)]
    for it in asked:
        assert (it["username"], it["password"], it["ssl_ca_certs"]) == ("us", "w&d", "/ca.pem")
        assert "SSL" in it["connection_class"].__name__


def test_sentinels_without_tls_beside_servers_with() -> None:
    pool = make_sentinel_pool("rediss+sentinel://one/m?sentinel_ssl=false&ssl_ca_certs=/ca.pem", {})
    assert "SSL" in pool.connection_class.__name__
    (asked,) = pool.sentinel_manager.addresses
    assert "connection_class" not in asked
    assert "ssl_ca_certs" not in asked


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one:1",
        "redis+sentinel://one:x/mymaster",
        "redis+sentinel://one/mymaster/zero",
        "redis+sentinel://one/mymaster?ssl_min_version=x",
    ],
)
def test_urls_that_mean_nothing(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make_pool(url)
