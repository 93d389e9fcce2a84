"""The stored keys as requests see them: in memory, at most 5 s behind the database. Knows no database and no HTTP.

All keys that were not revoked are held; a poll fetches what changed. So a known key costs no query, and neither does an
unknown one beyond a few shared ones a second: a key that is not here may have been made a moment ago, so the database
is asked once more before the answer is no. While the database is away the keys held go on working for `MAX_STALE_S`; a
key that is not held is then answered with StoreUnavailable (503), for nobody knows.

All keys are looked at when the cache begins, after an outage and now and then, page by page beside the polls: however
many there are, neither the event loop nor a revocation waits for it. Whether a key has expired is found out when it is
asked for, so that a clock that was wrong for a while leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from nllbd import log
from nllbd.errors import NllbdError, StoreUnavailable
from nllbd.store import key_text
from nllbd.store.records import KeyChanges, KeyRecord

#: How often the database is asked what changed. With one query's time limit on top it stays below 5 s.
POLL_S = 2.0
#: How long keys go on working that the database could not confirm.
MAX_STALE_S = 3600.0
#: A full look now and then: a database restored from a backup may count its changes anew.
FULL_EVERY_S = 300.0
_RETRY_S = 10.0
_COUNT_EVERY_S = 30.0
_BREATH_S = 0.002  # what others get between two pages of a full look
_SLICE = 500  # keys in memory that are gone through without a pause
_MIN_INTERVAL_S = 0.2
_REFRESH_S = 2.5

logger = log.get_logger(__name__)
T = TypeVar("T")


class KeySource(Protocol):
    """The part of the store that is read here."""

    async def key_generation(self) -> int: ...

    async def key_changes(self, since: int) -> KeyChanges: ...

    async def key_page(self, after_id: str) -> tuple[KeyRecord, ...]: ...

    async def revoked_sessions_page(self, after_id: str) -> tuple[str, ...]: ...


@dataclass(slots=True)
class _Ids:
    """What changed while all keys are looked at: newer than what that look finds."""

    keys: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class KeyCache:
    """Keys by digest and id, and sessions that were revoked. One event loop.

    Without `attach` nothing is known, and every look-up of a stored key's text raises StoreUnavailable.

    Attributes:
        limited_accounts: those of active keys with a monthly quota, as of the last half minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, utc_now: Callable[[], datetime] = _utc_now) -> None:
        self._clock = clock
        self._utc_now = utc_now
        self._source: KeySource | None = None
        self._by_digest: dict[bytes, KeyRecord] = {}
        self._by_id: dict[str, KeyRecord] = {}
        self._revoked_sessions: set[str] = set()
        self._generation: int | None = None
        self._confirmed_at: float | None = None
        self._full_at = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._changed: _Ids | None = None
        self._num_active = 0
        self.limited_accounts: frozenset[str] = frozenset()
        self._counted_at = -math.inf
        self._failed_at: float | None = None
        self._refreshing: asyncio.Task[bool] | None = None
        self._began_at = -math.inf
        self._is_polled = False
        self._has_held_keys = False

    def attach(self, source: KeySource) -> None:
        """Read from this store from now on."""
        self._source = source

    @property
    def num_keys(self) -> int:
        """Active keys, as of the last half minute."""
        return self._num_active

    @property
    def has_held_keys(self) -> bool | None:
        """Whether the database holds or ever held a key, ended ones included; None while that is not known."""
        if self._has_held_keys:
            return True
        return False if self.is_known else None

    @property
    def is_known(self) -> bool:
        """Whether what is held may be relied on: it was read, and not too long ago."""
        return not self._is_too_old()

    @property
    def is_current(self) -> bool:
        """Whether the last question to the database was answered."""
        return self._confirmed_at is not None and self._failed_at is None

    async def find(self, text: str) -> KeyRecord | None:
        """The active key with this text; None for what is unknown, expired, revoked or no key at all.

        Raises StoreUnavailable when that cannot be known.
        """
        if not key_text.is_key_text(text):
            return None
        digest = key_text.digest(text)
        found = self._by_digest.get(digest)
        if found is None:
            await self._look_again()
            found = self._by_digest.get(digest)
        self._check_age()
        return self._if_active(found)

    def get(self, key_id: str) -> KeyRecord | None:
        """The active key with this id, of those held. Raises StoreUnavailable while nothing is known."""
        self._check_age()
        return self._if_active(self._by_id.get(key_id))

    def is_session_revoked(self, session_id: str) -> bool:
        """Whether a session was revoked, itself or with its key. Raises StoreUnavailable while nothing is known."""
        self._check_age()
        return session_id in self._revoked_sessions

    async def run(self) -> None:
        """Keep up with the database, for ever."""
        self._is_polled = True
        try:
            while True:
                await self.refresh()
                await asyncio.sleep(POLL_S)
        finally:
            if self._looking is not None:
                self._looking.cancel()

    async def refresh(self) -> bool:
        """Ask the database now; callers at the same time share one question. False if it does not answer."""
        if self._refreshing is None or self._refreshing.done():
            self._began_at = self._clock()
            self._refreshing = asyncio.create_task(self._refresh())
        return await asyncio.shield(self._refreshing)

    async def _look_again(self) -> None:
        """A refresh that begins after now, a few a second at most. Raises StoreUnavailable if it fails, and at once
        while the last one did: the poll will tell when the database is back.
        """
        asked_at = self._clock()
        if self._failed_at is not None and self._is_polled:
            raise _away()
        while self._began_at < asked_at:
            if self._refreshing is not None and not self._refreshing.done():
                await asyncio.shield(self._refreshing)  # began before the question: it may have missed the key
            elif (pause_s := self._began_at + _MIN_INTERVAL_S - self._clock()) > 0:
                await asyncio.sleep(pause_s)
            else:
                await self.refresh()
        assert self._refreshing is not None
        if not await asyncio.shield(self._refreshing):
            raise _away()

    async def _refresh(self) -> bool:
        began = self._clock()
        try:
            if self._generation is None:
                generation = await self._ask(self._from.key_generation())
                await self._look_at_all()
                self._generation = generation
            changes = await self._ask(self._from.key_changes(self._generation))
        except Exception as error:
            self._note_failure(error)
            return False
        await self._apply(changes)
        is_due = changes.is_set_back or self._failed_at is not None or began - self._full_at >= FULL_EVERY_S
        if self._failed_at is not None:
            logger.info("keys are read again", known=len(self._by_id))
        self._failed_at, self._confirmed_at = None, began
        if is_due and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_again_at_all())
        if began - self._counted_at >= _COUNT_EVERY_S:
            await self._count()
        return True

    @property
    def _from(self) -> KeySource:
        if self._source is None:
            raise _away()
        return self._source

    async def _ask(self, question: Awaitable[T]) -> T:
        async with asyncio.timeout(_REFRESH_S):
            return await question

    def _note_failure(self, error: Exception) -> None:
        if self._failed_at is None:
            known = len(self._by_id)
            logger.warning("keys cannot be read; those known go on working", reason=_reason(error), known=known)
        self._failed_at = self._clock()

    async def _apply(self, changes: KeyChanges) -> None:
        for index, key in enumerate(changes.keys):
            self._put(key)
            if self._changed is not None:
                self._changed.keys.add(key.id)
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        self._revoked_sessions |= changes.revoked_sessions
        if self._changed is not None:
            self._changed.sessions |= changes.revoked_sessions
        self._generation = changes.generation
        if changes.keys:
            self._counted_at = -math.inf

    async def _look_again_at_all(self) -> None:
        try:
            await self._look_at_all()
        except Exception as error:
            logger.warning("not all keys could be looked at", reason=_reason(error))
            self._full_at = self._clock() - FULL_EVERY_S + _RETRY_S

    async def _look_at_all(self) -> None:
        """Make what is held what the database has, beside polls that go on: what they find meanwhile is newer."""
        began = self._clock()
        self._changed = changed = _Ids()
        try:
            found = await self._look_at_keys(changed)
            revoked = await self._look_at_sessions()
            await self._drop_all_but(found, changed)
            self._revoked_sessions = revoked | changed.sessions
        finally:
            self._changed = None
        self._full_at, self._counted_at = began, -math.inf

    async def _look_at_keys(self, changed: _Ids) -> set[str]:
        """The ids of all there are."""
        found: set[str] = set()
        after = ""
        while page := await self._ask(self._from.key_page(after)):
            for index, key in enumerate(page):
                known = self._by_id.get(key.id)
                found.add(key.id if known is None else known.id)
                if known != key and key.id not in changed.keys:
                    self._put(key)
                if index % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
            after = page[-1].id
            await asyncio.sleep(_BREATH_S)
        return found

    async def _look_at_sessions(self) -> set[str]:
        found: set[str] = set()
        after = ""
        while page := await self._ask(self._from.revoked_sessions_page(after)):
            found.update(page)
            after = page[-1]
        return found

    async def _drop_all_but(self, found: set[str], changed: _Ids) -> None:
        held = list(self._by_id)
        for first in range(0, len(held), _SLICE):
            for key_id in held[first : first + _SLICE]:
                if key_id not in found and key_id not in changed.keys:
                    self._drop(key_id)
            await asyncio.sleep(0)

    async def _count(self) -> None:
        """How many keys are active; of many it takes a while."""
        now, number = self._utc_now(), 0
        limited: set[str] = set()
        held = list(self._by_id.values())
        for first in range(0, len(held), _SLICE):
            active = [key for key in held[first : first + _SLICE] if key.is_active(now)]
            number += len(active)
            limited.update(key.account for key in active if key.limits.monthly_characters is not None)
            await asyncio.sleep(0)
        self._num_active, self.limited_accounts, self._counted_at = number, frozenset(limited), self._clock()

    def _put(self, key: KeyRecord) -> None:
        self._has_held_keys = True
        self._drop(key.id)
        if key.revoked_at is None:
            self._by_digest[key.digest] = self._by_id[key.id] = key

    def _drop(self, key_id: str) -> None:
        held = self._by_id.pop(key_id, None)
        if held is not None:
            self._by_digest.pop(held.digest, None)

    def _check_age(self) -> None:
        if self._is_too_old():
            raise _away()

    def _is_too_old(self) -> bool:
        return self._confirmed_at is None or self._clock() - self._confirmed_at > MAX_STALE_S

    def _if_active(self, key: KeyRecord | None) -> KeyRecord | None:
        return key if key is not None and key.is_active(self._utc_now()) else None


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, NllbdError) else type(error).__name__


def _away() -> StoreUnavailable:
    return StoreUnavailable("the store of keys does not answer; try again shortly")
