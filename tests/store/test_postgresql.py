"""Several servers of which one is the primary: which is taken, how long that takes, what becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from nllbd.errors import ConfigError, StoreUnavailable
from nllbd.store import database, postgresql
from nllbd.store.database import Database
from nllbd.store.postgresql import HEAD_START_S, connect, spread_hosts
from nllbd.store.store import Store
from tests.store.conftest import Cluster, Server
from tests.store.postgres import USER, find_programs

OpenStore = Callable[[str], Any]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+asyncpg://u:p%40@a:1,b/d", "postgresql+asyncpg://u:p%40@/d?host=a:1&host=b:5432"),
        (
            "postgresql+asyncpg://u@a,b/d?sslmode=verify-full&sslrootcert=/etc/ca%20file.crt",
            "postgresql+asyncpg://u@/d?sslmode=verify-full&sslrootcert=/etc/ca%20file.crt&host=a:5432&host=b:5432",
        ),
        ("postgresql+asyncpg://a:5432/d?x=1", None),
        ("postgresql+asyncpg://u@/d?host=a:1&host=b:2", None),
        ("sqlite+aiosqlite:////var/lib/nllbd/a,b.db", None),
    ],
)
def test_hosts_of_a_url(url: str, expected: str | None) -> None:
    assert spread_hosts(url) == (expected or url)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    cluster = Cluster(programs)
    try:
        primary = cluster.make_primary()
        yield primary, cluster.make_replica(primary)
    finally:
        cluster.remove()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Takes connections and says nothing, as a machine that hangs does."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def url_of(*ports: int, more: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql+asyncpg://{USER}@{hosts}/postgres{more}"


async def test_of_several_the_one_that_takes_writes(pair: tuple[Server, Server], open_store: OpenStore) -> None:
    primary, standby = pair
    store = await open_store(url_of(standby.port, primary.port))
    assert (await store.key_changes(0)).keys == ()
    assert primary.query("select count(*) from pg_stat_activity where application_name = 'nllbd'") != "0"
    assert standby.query("select count(*) from pg_stat_activity where application_name = 'nllbd'") == "0"


async def test_a_server_that_hangs_costs_its_head_start_and_no_more(
    pair: tuple[Server, Server], silent_port: int, open_store: OpenStore
) -> None:
    began = time.monotonic()
    await open_store(url_of(silent_port, silent_port, pair[0].port))
    assert 2 * HEAD_START_S <= time.monotonic() - began < database.OPERATION_S


async def test_who_lost_the_race_is_disconnected(pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "HEAD_START_S", 0.0)
    primary = pair[0]
    settings = {"application_name": "racer"}
    options = {"user": USER, "database": "postgres", "server_settings": settings}
    connection = await connect(host=["127.0.0.1"] * 3, port=[primary.port] * 3, **options)
    async with asyncio.timeout(30):
        while primary.query("select count(*) from pg_stat_activity where application_name = 'racer'") != "1":  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.05)
    await connection.close()


async def test_only_standbys_is_no_database(pair: tuple[Server, Server]) -> None:
    with pytest.raises(StoreUnavailable, match="TargetServerAttributeNotMatched"):
        await Database.open(url_of(pair[1].port, pair[1].port))


async def test_nobody_at_all(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(StoreUnavailable):
        await Database.open(url_of(unused_tcp_port_factory(), unused_tcp_port_factory()))


async def test_a_standby_may_be_asked_for(pair: tuple[Server, Server]) -> None:
    hosts = {"host": ["127.0.0.1"] * 2, "port": [pair[0].port, pair[1].port]}
    connection = await connect(**hosts, user=USER, database="postgres", target_session_attrs="standby")
    assert await connection.fetchval("select pg_is_in_recovery()")
    await connection.close()


async def test_a_password_that_is_refused_is_told_by_its_kind(pair: tuple[Server, Server]) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await Store.open(url_of(pair[0].port).replace(f"{USER}@", "nobody:secret-word@"))


@pytest.mark.parametrize("more", ["?sslmode=verify-full", "?sslmode=verify-full&sslrootcert=/nowhere/ca.crt"])
async def test_certificates_are_asked_for(pair: tuple[Server, Server], more: str) -> None:
    """These servers have none; what is asked for is insisted on. With certificates: tests/ops/data."""
    with pytest.raises((StoreUnavailable, ConfigError)):
        await Store.open(url_of(pair[0].port, more=more))
