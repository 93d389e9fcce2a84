"""Connections by URL, TLS among them, URLs that mean nothing, and what a server tells of itself."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from bench.ports import free_port
from nllbd.redis_client import RedisLink
from nllbd.redis_wire import RedisAway, RedisRefused, look_at, make_pool

WITHIN_S = 30.0


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
