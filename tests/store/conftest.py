"""Stores to test with: SQLite in a file, and a real PostgreSQL where it is installed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nllbd.errors import NllbdError
from nllbd.store.store import Store
from tests.store.postgres import Cluster, Server, find_programs, url_of

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL server for all tests that leave it running."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    cluster = Cluster(programs)
    try:
        yield cluster.make_primary()
    finally:
        cluster.remove()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """Servers of a test's own, to kill."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    cluster = Cluster(programs)
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def postgres_url(postgres: Server) -> str:
    """Where an empty PostgreSQL database is."""
    name = f"test{next(_numbers)}"
    postgres.query(f"create database {name}")
    return url_of(postgres.port, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is, of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


OpenStore = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Factory of stores that are closed in the end."""
    opened: list[Store] = []

    async def open_one(url: str) -> Store:
        opened.append(await Store.open(url))
        return opened[-1]

    yield open_one
    for store in opened:
        with suppress(NllbdError):
            await store.close()


@pytest.fixture
async def store(store_url: str, open_store: OpenStore) -> Store:
    """An empty store of each kind."""
    return await open_store(store_url)
