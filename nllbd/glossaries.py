"""Glossaries as requests use them: found by id in the store, kept ready in memory for a while. Knows no HTTP.

A glossary never changes, it can only be deleted; another host's deletion is seen after `FRESH_S`. While the database is
away, what is in memory goes on being used.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from nllbd.accounts import Accounts
from nllbd.errors import NotFound, StoreUnavailable, TooManyTexts
from nllbd.languages import BY_CODE
from nllbd.store.key_text import is_id
from nllbd.store.records import GlossaryRecord
from nllbd.text.glossary import Glossary

FRESH_S = 5.0
MAX_PER_ACCOUNT = 1_000
_KEPT = 64
_NO_SUCH = "there is no glossary with this id"


@dataclass(frozen=True, slots=True)
class Ready:
    """A glossary and its terms, ready to be looked for. `since`: when it was read, in seconds."""

    record: GlossaryRecord
    terms: Glossary
    since: float


class Glossaries:
    """All accounts' glossaries. One event loop. Raises StoreUnavailable where only the database could tell."""

    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock
        self._ready: OrderedDict[tuple[str, str], Ready] = OrderedDict()

    async def find(self, account: str, glossary_id: str) -> Ready:
        """An account's glossary. Raises NotFound, for another's too."""
        _check_id(glossary_id)
        key = (account, glossary_id)
        kept = self._ready.get(key)
        if kept is not None and self._clock() - kept.since < FRESH_S:
            self._ready.move_to_end(key)
            return kept
        try:
            record = await self._accounts.store.find_glossary(account, glossary_id)
        except StoreUnavailable:
            if kept is not None:
                return kept
            raise
        if record is None:
            self._ready.pop(key, None)
            raise NotFound(_NO_SUCH)
        terms = kept.terms if kept is not None else await asyncio.to_thread(_terms_of, record)
        self._ready[key] = Ready(record, terms, self._clock())
        while len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
        return self._ready[key]

    async def list(self, account: str) -> list[GlossaryRecord]:
        """An account's glossaries, oldest first."""
        return await self._accounts.store.list_glossaries(account)

    async def add(self, record: GlossaryRecord) -> None:
        """Keep a new glossary. Raises TooManyTexts when its account has as many as it may."""
        if len(await self.list(record.account)) >= MAX_PER_ACCOUNT:
            raise TooManyTexts(f"an account may have {MAX_PER_ACCOUNT} glossaries; delete one first")
        await self._accounts.store.add_glossary(record)

    async def delete(self, account: str, glossary_id: str) -> None:
        """Raises NotFound when the account has no such glossary."""
        _check_id(glossary_id)
        self._ready.pop((account, glossary_id), None)
        if not await self._accounts.store.delete_glossary(account, glossary_id):
            raise NotFound(_NO_SUCH)


def _check_id(text: str) -> None:
    """It comes out of a URL: what no id can be, such as a NUL, is none of the database's business."""
    if not is_id(text):
        raise NotFound(_NO_SUCH)


def _terms_of(record: GlossaryRecord) -> Glossary:
    return Glossary(record.entries, spaces=BY_CODE[record.source_lang].spaces)
