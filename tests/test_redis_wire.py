"""Connections by URL: Sentinels that name the master, before and after a failover, and URLs that mean nothing."""

from __future__ import annotations

import datetime
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from nllbd.redis_client import RedisLink, RedisProblem
from nllbd.redis_wire import RedisAway, RedisRefused, look_at, make_pool

WITHIN_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Sentinel:
    port: int

    def ask(self, *words: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65_536)


@pytest.fixture
def start_sentinel(tmp_path: Path) -> Iterator[Callable[[Any], Sentinel]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(master: Any) -> Sentinel:
        port, file = free_port(), tmp_path / "sentinel.conf"
        file.write_text(f"port {port}\ndir {tmp_path}\nsentinel monitor mymaster 127.0.0.1 {master.port} 1\n")
        program = shutil.which("redis-server", path="/usr/bin:/usr/sbin:/usr/local/bin") or "redis-server"
        processes.append(subprocess.Popen([program, str(file), "--sentinel"], stdout=subprocess.DEVNULL))
        return Sentinel(port)

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate of localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
    )
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, SHA256())
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return files


async def test_sentinels_name_the_master_and_its_successor(
    start_redis: Any, start_sentinel: Any, eventually: Any
) -> None:
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
        await eventually(lambda: f"${len(str(replica.port))}\r\n{replica.port}" in _master_of(sentinel))
        master.kill()

        async def port() -> bytes:
            try:
                return bytes(await link.call("INFO", "server"))
            except RedisProblem:
                return b""

        while f"tcp_port:{replica.port}".encode() not in await port():
            await link.wait_up(WITHIN_S)
    finally:
        await link.close()


def _master_of(sentinel: Any) -> str:
    return str(sentinel.ask("sentinel", "get-master-addr-by-name", "mymaster").decode())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis+sentinel://user:p%40ss@one:1,two/mymaster/3?sentinel_password=word",
            {"username": "user", "password": "p@ss", "db": 3},
        ),
        ("rediss+sentinel://one/mymaster", {"username": None, "password": None, "db": 0}),
        ("redis://user:p%40ss@one:1/3", {"username": "user", "password": "p@ss", "db": 3}),
    ],
)
def test_what_a_url_says(url: str, expected: dict[str, Any]) -> None:
    given = make_pool(url).connection_kwargs
    assert {name: given.get(name) for name in expected} == {**expected}
    assert make_pool(url).make_connection() is not None


def test_sentinels_addresses_and_password() -> None:
    pool = make_pool("redis+sentinel://one:1,two/mymaster?sentinel_password=word")
    found = [client.connection_pool.connection_kwargs for client in pool.sentinel_manager.sentinels]
    assert [(it["host"], it["port"], it["password"]) for it in found] == [("one", 1, "word"), ("two", 26379, "word")]


@pytest.mark.parametrize(
    "url", ["redis+sentinel://one:1", "redis+sentinel://one:x/mymaster", "redis://localhost:port", "http://one"]
)
def test_urls_that_mean_nothing(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make_pool(url)


async def test_a_server_tells_of_itself(start_redis: Any) -> None:
    facts = await look_at(start_redis(maxmemory="5mb", maxmemory_policy="allkeys-lru").url, WITHIN_S)
    assert facts.version.count(".") == 2
    assert (facts.max_memory_bytes, facts.policy) == (5 << 20, "allkeys-lru")


async def test_a_server_that_may_not_tell(start_redis: Any) -> None:
    server = start_redis()
    link = RedisLink(server.url, timeout_s=WITHIN_S)
    link.start()
    assert await link.wait_up(WITHIN_S)
    await link.call("ACL", "SETUSER", "default", "-info")
    await link.close()
    with pytest.raises(RedisRefused):
        await look_at(server.url, WITHIN_S)
    server.kill()
    with pytest.raises(RedisAway, match="111"):
        await look_at(server.url, WITHIN_S)


async def test_tls(start_redis: Any, certificate: tuple[Path, Path]) -> None:
    port, (cert, key) = free_port(), certificate
    start_redis(tls_port=str(port), tls_auth_clients="no", tls_cert_file=str(cert), tls_key_file=str(key))
    assert (await look_at(f"rediss://localhost:{port}?ssl_ca_certs={cert}", WITHIN_S)).version
    with pytest.raises(RedisAway, match="certificate"):
        await look_at(f"rediss://localhost:{port}", WITHIN_S)
