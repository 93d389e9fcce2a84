"""Glossaries in memory: read once, read again after a while, used on while the database is away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nllbd.errors import NotFound, StoreUnavailable, TooManyTexts
from nllbd.glossaries import FRESH_S, MAX_PER_ACCOUNT, Glossaries
from nllbd.store.key_text import new_id
from nllbd.store.records import GlossaryRecord

ID, OTHER_ID = new_id(), new_id()
RECORD = GlossaryRecord(ID, "me", "n", "eng_Latn", "fra_Latn", {"a": "b"}, datetime.now(UTC))


class Shelf:
    """A store of one glossary, and the accounts that have it."""

    def __init__(self) -> None:
        self.records = {("me", ID): RECORD}
        self.num_reads = 0
        self.is_away = False
        self.num_listed = 0

    @property
    def store(self) -> Any:
        if self.is_away:
            raise StoreUnavailable("away")
        return self

    async def find_glossary(self, account: str, glossary_id: str) -> GlossaryRecord | None:
        self.num_reads += 1
        return self.records.get((account, glossary_id))

    async def list_glossaries(self, account: str) -> list[GlossaryRecord]:
        return [RECORD] * self.num_listed

    async def delete_glossary(self, account: str, glossary_id: str) -> bool:
        return self.records.pop((account, glossary_id), None) is not None


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def glossaries(shelf: Shelf, now: list[float]) -> Glossaries:
    accounts: Any = shelf
    return Glossaries(accounts, lambda: now[0])


async def test_read_once_while_fresh(glossaries: Glossaries, shelf: Shelf, now: list[float]) -> None:
    for _ in range(3):
        assert (await glossaries.find("me", ID)).record is RECORD
    assert shelf.num_reads == 1
    now[0] = FRESH_S
    await glossaries.find("me", ID)
    assert shelf.num_reads == 2


async def test_gone_on_another_host(glossaries: Glossaries, shelf: Shelf, now: list[float]) -> None:
    await glossaries.find("me", ID)
    shelf.records.clear()
    now[0] = FRESH_S
    with pytest.raises(NotFound):
        await glossaries.find("me", ID)


async def test_a_database_that_is_away(glossaries: Glossaries, shelf: Shelf, now: list[float]) -> None:
    await glossaries.find("me", ID)
    shelf.is_away, now[0] = True, 1000.0
    assert (await glossaries.find("me", ID)).terms.mask("a").terms
    with pytest.raises(StoreUnavailable):
        await glossaries.find("me", OTHER_ID)


async def test_deleted_here_is_gone_at_once(glossaries: Glossaries) -> None:
    await glossaries.find("me", ID)
    await glossaries.delete("me", ID)
    for call in (glossaries.find, glossaries.delete):
        with pytest.raises(NotFound):
            await call("me", ID)


async def test_another_s_is_not_found(glossaries: Glossaries) -> None:
    await glossaries.find("me", ID)
    with pytest.raises(NotFound):
        await glossaries.find("you", ID)


async def test_an_account_has_so_many(glossaries: Glossaries, shelf: Shelf) -> None:
    shelf.num_listed = MAX_PER_ACCOUNT
    with pytest.raises(TooManyTexts):
        await glossaries.add(RECORD)


@pytest.mark.parametrize("unfit", ["\0", "", "x" * 10_000, ID.upper()])
async def test_what_is_no_id_is_not_looked_for(glossaries: Glossaries, shelf: Shelf, unfit: str) -> None:
    """It comes out of a URL, and PostgreSQL takes no NUL."""
    shelf.records["me", unfit] = RECORD
    for call in (glossaries.find, glossaries.delete):
        with pytest.raises(NotFound):
            await call("me", unfit)
    assert (shelf.num_reads, len(shelf.records)) == (0, 2)
