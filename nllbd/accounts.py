"""Keys, usage and audit log as the daemon uses them: opens the store in the background, and keeps memory and database
together from then on.

What requests need (`keys`, `usage`, `audit`) is there at once and never waits for the database, which may be away for
as long as it likes. SQLAlchemy is imported in a thread while the engine loads. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nllbd import __version__, log
from nllbd.config import Settings
from nllbd.config.table import state_folder
from nllbd.errors import NllbdError, StoreUnavailable
from nllbd.metrics import AUDIT_DROPPED, STORE_UP, STORED_KEYS, USAGE_LOST, USAGE_WAITING, Metrics
from nllbd.store.audit import AuditLog
from nllbd.store.journal import Journal
from nllbd.store.keys import KeyCache
from nllbd.store.usage import FLUSH_S, UsageMeter

if TYPE_CHECKING:
    from nllbd.store.store import Store

#: How long the daemon's start waits for a database that may be there any moment.
OPEN_S = 5.0
_RETRY_S = 1.0
_MAX_RETRY_S = 10.0
_CLOSE_S = 6.0
_MIN_FLUSH_S = 0.05
_MAX_FOLLOWED = 2000
_TIDY_EVERY_S = 24 * 3600.0
_KEEP_BATCHES = timedelta(days=30)
_KEEP_SESSIONS = timedelta(days=30)

_DATABASE = "nllbd.db"
_JOURNAL = "usage"

logger = log.get_logger(__name__)


def store_url(settings: Settings) -> str:
    """Where the database is: `database_url`, else a file in the state folder."""
    return settings.database_url or f"sqlite+aiosqlite:///{state_folder().absolute() / _DATABASE}"


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days audit events and usage are kept; 0 = for ever."""

    audit_days: int = 0
    usage_days: int = 0

    def audit_before(self, now: datetime) -> datetime | None:
        """Older events may go; None: none."""
        return now - timedelta(days=self.audit_days) if self.audit_days else None

    def usage_before(self, now: datetime) -> date | None:
        """Usage of earlier days may go; None: none. The running month stays: quotas count it."""
        if not self.usage_days:
            return None
        return min((now - timedelta(days=self.usage_days)).date(), now.date().replace(day=1))


class Accounts:
    """One daemon's view of the store. One event loop.

    Attributes:
        keys: the stored keys, in memory.
        usage: bookings and this month's totals.
        audit: what an operator will want to know of later.
    """

    def __init__(
        self,
        url: str = "",
        journal_folder: Path | None = None,
        retention: Retention | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """With `url` "" there is no store: stored keys are unknown, usage is counted in memory only."""
        self._url = url
        self._retention = retention or Retention()
        self._metrics = metrics
        journal, left_behind = _open_journal(journal_folder)
        self.keys = KeyCache()
        self.usage = UsageMeter(journal, left_behind)
        self.audit = AuditLog(actor=f"daemon:{os.uname().nodename}:{os.getpid()}")
        self._store: Store | None = None
        self._opened = asyncio.Event()
        self._failed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    @classmethod
    def from_settings(cls, settings: Settings, metrics: Metrics) -> Accounts:
        retention = Retention(settings.audit_retention_days, settings.usage_retention_days)
        return cls(store_url(settings), state_folder() / _JOURNAL, retention, metrics)

    @property
    def has_store(self) -> bool:
        """Whether there is a database, open or not."""
        return bool(self._url)

    @property
    def store(self) -> Store:
        """The database, for what is not on the translation path. Raises StoreUnavailable until it is open."""
        if self._store is None:
            raise StoreUnavailable("the database cannot be reached; try again shortly")
        return self._store

    @property
    def is_open(self) -> bool:
        return self._store is not None

    def start(self) -> None:
        """Begin to open the store; it goes on in the background until it is open. A second call changes nothing."""
        if self._url and self._running is None:
            self.audit.record("daemon.started", version=__version__)
            self._running = asyncio.create_task(self._run())

    async def wait_settled(self, timeout_s: float = OPEN_S) -> None:
        """Return when the store is open and its keys are known, or it is clear that this will not be soon."""
        if not self._url:
            return
        waits = [asyncio.ensure_future(event.wait()) for event in (self._opened, self._failed)]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def wait_open(self) -> None:
        """Return once the store is open and its keys are known, however long that takes."""
        await self._opened.wait()

    async def close(self) -> None:
        """Flush within a time limit; what the database does not take stays in the journal. Once."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self.audit.record("daemon.stopped")
        store = self._store
        try:
            async with asyncio.timeout(_CLOSE_S):
                if self._url:
                    await self.usage.close(store)
                if store is not None:
                    await self.audit.flush(store)
        except (TimeoutError, StoreUnavailable) as error:
            logger.warning("stopped without the database", reason=str(error) or "it took too long")
        if store is not None:
            await store.close()

    async def _run(self) -> None:
        store = await self._open()
        self.keys.attach(store)
        self._store = store
        await asyncio.gather(self.keys.run(), self._flush_for_ever(store), self._load_totals(store), self._tidy(store))

    async def _open(self) -> Store:
        """Try until it works. A wrong URL is said once, like an outage: the rest of the daemon serves."""
        pause_s = _RETRY_S
        while True:
            try:
                module = await asyncio.to_thread(importlib.import_module, "nllbd.store.store")
                return await module.Store.open(self._url)  # type: ignore[no-any-return]
            except Exception as error:
                if not self._failed.is_set():
                    reason = error.message if isinstance(error, NllbdError) else type(error).__name__
                    logger.error("the database cannot be opened; stored keys are refused", reason=reason)
                self._failed.set()
            self._report()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_RETRY_S)

    async def _load_totals(self, store: Store) -> None:
        while True:
            with suppress(NllbdError):
                if await self.keys.refresh():
                    await self.usage.load(store)
                    break
            await asyncio.sleep(_RETRY_S)
        self._opened.set()

    async def _flush_for_ever(self, store: Store) -> None:
        was_away_since: float | None = None
        while True:
            await self._pause(is_away=was_away_since is not None)
            self._report()
            try:
                await self.usage.flush(store)
                await self.usage.refresh(store, self._limited_accounts())
                await self.audit.flush(store)
            except StoreUnavailable as error:
                if was_away_since is None:
                    was_away_since = time.monotonic()
                    logger.warning("usage cannot be written; it is kept", reason=error.message)
            except Exception:
                logger.exception("flush of usage and audit")
            else:
                if was_away_since is not None:
                    logger.info("usage is written again", away_s=round(time.monotonic() - was_away_since, 1))
                was_away_since = None

    async def _pause(self, *, is_away: bool) -> None:
        """Until the next flush; a shorter one if somebody with a quota has come whose use elsewhere is not known."""
        if is_away:
            await asyncio.sleep(FLUSH_S)
            return
        await asyncio.sleep(_MIN_FLUSH_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self.usage.is_wanted.wait()

    def _limited_accounts(self) -> Collection[str]:
        """Of few accounts with quotas all are followed, of many those that come."""
        limited = self.keys.limited_accounts
        return limited if len(limited) <= _MAX_FOLLOWED else ()

    async def _tidy(self, store: Store) -> None:
        while True:
            now = datetime.now(UTC)
            with suppress(NllbdError):
                await store.tidy(
                    batches_before=now - _KEEP_BATCHES,
                    sessions_before=now - _KEEP_SESSIONS,
                    audit_before=self._retention.audit_before(now),
                    usage_before=self._retention.usage_before(now),
                )
            await asyncio.sleep(_TIDY_EVERY_S)

    def _report(self) -> None:
        """Our figures, for the next scrape."""
        if self._metrics is None:
            return
        set_to = self._metrics.set
        set_to(STORE_UP, float(self.is_open and self.keys.is_current))
        set_to(STORED_KEYS, self.keys.num_keys)
        set_to(USAGE_WAITING, self.usage.num_segments)
        set_to(USAGE_LOST, self.usage.lost_characters)
        set_to(AUDIT_DROPPED, self.audit.num_dropped)


def _open_journal(folder: Path | None) -> tuple[Journal | None, list[str]]:
    if folder is None:
        return None, []
    try:
        return Journal.open(folder)
    except OSError as error:
        logger.error("no usage journal: what is not in the database is lost with this process", reason=str(error))
        return None, []
