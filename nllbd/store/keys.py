"""The stored keys as requests see them: in memory, at most 5 s behind the database. Knows no database and no HTTP.

All active keys are held; a poll fetches what changed. So a known key costs no query, and neither does an unknown one
beyond a few shared ones a second: a key that is not here may have been made a moment ago, so the database is asked
once more before the answer is no. While the database is away the keys held go on working for `MAX_STALE_S`; a key that
is not held is then answered with StoreUnavailable (503), for nobody knows.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

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
_MIN_INTERVAL_S = 0.2
_REFRESH_S = 2.5

logger = log.get_logger(__name__)


class KeySource(Protocol):
    """The part of the store that is read here."""

    async def key_changes(self, since: int | None) -> KeyChanges: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class KeyCache:
    """Active keys by digest and id, and sessions that were revoked. One event loop.

    Without `attach` nothing is known, and every look-up of a stored key's text raises StoreUnavailable.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, utc_now: Callable[[], datetime] = _utc_now) -> None:
        self._clock = clock
        self._utc_now = utc_now
        self._source: KeySource | None = None
        self._by_digest: dict[bytes, KeyRecord] = {}
        self._by_id: dict[str, KeyRecord] = {}
        self._revoked_sessions: frozenset[str] = frozenset()
        self._generation: int | None = None
        self._confirmed_at: float | None = None
        self._full_at = 0.0
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
        """Active keys held."""
        return len(self._by_id)

    @property
    def has_held_keys(self) -> bool | None:
        """Whether the database holds or ever held a key, ended ones included; None while that is not known."""
        if self._has_held_keys:
            return True
        return None if self._is_too_old() else False

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
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

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
            if self._source is None:
                raise _away()
            is_full = self._failed_at is not None or began - self._full_at >= FULL_EVERY_S
            async with asyncio.timeout(_REFRESH_S):
                changes = await self._source.key_changes(None if is_full else self._generation)
        except Exception as error:
            if self._failed_at is None:
                reason = error.message if isinstance(error, NllbdError) else type(error).__name__
                logger.warning("keys cannot be read; those known go on working", reason=reason, known=self.num_keys)
            self._failed_at = self._clock()
            return False
        self._apply(changes)
        if self._failed_at is not None:
            logger.info("keys are read again", known=self.num_keys)
        self._failed_at, self._confirmed_at = None, began
        if changes.is_complete:
            self._full_at = began
        return True

    def _apply(self, changes: KeyChanges) -> None:
        now = self._utc_now()
        self._has_held_keys = self._has_held_keys or bool(changes.keys)
        if changes.is_complete:
            self._by_digest, self._by_id = {}, {}
            self._revoked_sessions = frozenset()
        for key in changes.keys:
            if key.is_active(now):
                self._by_digest[key.digest] = self._by_id[key.id] = key
            else:
                self._by_digest.pop(key.digest, None)
                self._by_id.pop(key.id, None)
        if changes.revoked_sessions:
            self._revoked_sessions |= changes.revoked_sessions
        self._generation = changes.generation

    def _check_age(self) -> None:
        if self._is_too_old():
            raise _away()

    def _is_too_old(self) -> bool:
        return self._confirmed_at is None or self._clock() - self._confirmed_at > MAX_STALE_S

    def _if_active(self, key: KeyRecord | None) -> KeyRecord | None:
        return key if key is not None and key.is_active(self._utc_now()) else None


def _away() -> StoreUnavailable:
    return StoreUnavailable("the store of keys does not answer; try again shortly")
