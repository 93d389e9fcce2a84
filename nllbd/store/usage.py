"""Who used how much: booked in memory and in the journal at once, in the database a moment later. Never waits for it.

A booking goes to the running segment: a sum by account and day in memory, and a record in the journal. Every `FLUSH_S`
the segment is sealed and sent as one batch under its own id, which the database counts once however often it comes.
While the database is away the running segment goes on; when it holds `MAX_ACCOUNTS` sums or `MAX_SEGMENT_BYTES` of
journal it is sealed, summed up on disk and leaves memory, which so stays bounded.

What can be lost: nothing when the daemon is killed; what was booked since the last flush when the machine loses power.
Figures of this month, for quotas: what the database had when it was asked last, all hosts together, and what this
daemon has booked since. The database is asked for the accounts that are in use here with every flush, for all that have
a quota every `REFRESH_S`, and for one with a quota that comes after a pause at once, beside its request. While it is
away memory follows the accounts with quotas and as many others as it takes.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from nllbd import log
from nllbd.errors import NllbdError, QuotaExceeded, StoreUnavailable
from nllbd.store.journal import Journal, encode
from nllbd.store.names import clean_name, is_plain
from nllbd.store.records import UsageBatch, UsageEntry

FLUSH_S = 2.0
#: How old a figure of other hosts may be for an account with a quota: with a flush and a query on top below 5 s.
REFRESH_S = 2.0
STALE_S = 5.0
MAX_ACCOUNTS = 20_000
MAX_SEGMENT_BYTES = 8 << 20
_SHRINK_ABOVE_BYTES = 64 << 10
_ENTRIES_A_TURN = 1000

logger = log.get_logger(__name__)


class UsageSink(Protocol):
    """The part of the store that is written here."""

    async def book_usage(self, batch: UsageBatch) -> bool: ...

    async def usage_totals(
        self, first_day: date, last_day: date, accounts: Collection[str] | None = None
    ) -> dict[str, int]: ...


_Sums = dict[tuple[str, date], UsageEntry]


@dataclass(slots=True)
class _Sealed:
    """A segment that takes no more bookings. `entries` None: only the journal has them. `is_ours`: booked by this
    daemon, so its characters are among those of this month already. `at_risk`: characters that the journal lacks.
    """

    id: str
    entries: tuple[UsageEntry, ...] | None
    in_journal: bool
    is_ours: bool = True
    is_damaged: bool = False
    at_risk: int = 0


def utc_today() -> date:
    return datetime.now(UTC).date()


class UsageMeter:
    """The bookings of one daemon. One event loop. Without a journal, what is not flushed is lost with the process.

    Attributes:
        lost_characters: booked, but dropped: neither the disk nor the database took them, and memory was full.
        wanted: accounts whose figures are to be asked for at once; `is_wanted` is set when one comes.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        left_behind: Collection[str] = (),
        today: Callable[[], date] = utc_today,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._today = today
        self._sums: _Sums = {}
        self._is_journaled = journal is not None  # every booking of the running segment is in the journal
        self._sealed = deque(_Sealed(segment, None, in_journal=True, is_ours=False) for segment in left_behind)
        self._flushing = asyncio.Lock()
        self._month = _month_of(today())
        self._stored: dict[str, int] = {}
        self._unflushed: defaultdict[str, int] = defaultdict(int)
        self._held: defaultdict[str, int] = defaultdict(int)
        self._clock = clock
        self._asked_at: dict[str, float] = {}  # of the accounts with quotas: when the database said what they used
        self._at_risk = 0  # characters of the running segment that the journal did not take
        self.wanted: set[str] = set()
        self.is_wanted = asyncio.Event()
        self.lost_characters = 0

    @property
    def num_unflushed(self) -> int:
        """Sums in memory that the database does not have."""
        return len(self._sums) + sum(len(segment.entries or ()) for segment in self._sealed)

    @property
    def num_segments(self) -> int:
        """Sealed segments that wait for the database."""
        return len(self._sealed)

    def book(self, entry: UsageEntry) -> None:
        """Count what was used. Microseconds; raises nothing."""
        if not is_plain(entry.account):
            entry = replace(entry, account=clean_name(entry.account))
        key = (entry.account, entry.day)
        known = self._sums.get(key)
        if known is None and len(self._sums) >= MAX_ACCOUNTS and not self._make_room():
            self.lost_characters += entry.characters
            return
        self._sums[key] = entry if known is None else _add(known, entry)
        self._write(entry)
        if _month_of(entry.day) == self._this_month() and self._is_followed(entry.account):
            self._unflushed[entry.account] += entry.characters

    def used_this_month(self, account: str) -> int:
        """Characters booked on an account in this month (UTC), as far as this daemon knows."""
        self._this_month()
        account = account if is_plain(account) else clean_name(account)
        return self._stored.get(account, 0) + self._unflushed.get(account, 0)

    @contextmanager
    def hold(self, account: str, characters: int, limit: int | None) -> Iterator[None]:
        """Reserve characters while they are translated, so that requests at the same time cannot pass the quota
        together. Book inside. Raises QuotaExceeded when the month has not so many left.
        """
        if limit is None:
            yield
            return
        self._want(account)
        used = self.used_this_month(account) + self._held.get(account, 0)
        if used + characters > limit:
            raise QuotaExceeded(
                f"the quota of {limit} characters a month has {max(0, limit - used)} left, and this request has "
                f"{characters}; it starts anew on the first of next month (UTC)",
                retry_after_s=_seconds_to_next_month(),
            )
        self._held[account] += characters
        try:
            yield
        finally:
            self._held[account] -= characters
            if not self._held[account]:
                del self._held[account]

    async def load(self, store: UsageSink) -> None:
        """Read this month's totals of all accounts. Raises StoreUnavailable."""
        async with self._flushing:
            first, last = _days_of(self._this_month())
            self._stored = dict(await store.usage_totals(first, last))

    async def refresh(self, store: UsageSink, limited: Collection[str] = ()) -> None:
        """Ask what all hosts booked on `limited` accounts, those with quotas, if it was not known a moment ago, and on
        the wanted ones. Raises StoreUnavailable.
        """
        async with self._flushing:
            self.is_wanted.clear()
            due_at = self._clock() - REFRESH_S
            due = {account for account in limited if self._asked_at.get(account, -math.inf) <= due_at}
            await self._refresh_totals(store, due | self.wanted, due | self.wanted)
            self.wanted.clear()

    async def flush(self, store: UsageSink) -> None:
        """Bring everything booked so far into the database. Raises StoreUnavailable; nothing is lost then."""
        async with self._flushing:
            touched: set[str] = set()
            try:
                if self._sealed:  # what an outage or another daemon left comes first
                    touched |= await self._send_sealed(store)
                if self._sums:
                    self._seal(keep=True)
                    touched |= await self._send_sealed(store)
                await self._refresh_totals(store, touched, touched & self._asked_at.keys())
            except StoreUnavailable:
                await self._settle()
                raise

    async def close(self, store: UsageSink | None) -> None:
        """Flush if that is possible; what remains stays in the journal for the next start."""
        try:
            if store is not None:
                await self.flush(store)
        except StoreUnavailable:
            logger.warning("usage is left in the journal", segments=self.num_segments, sums=self.num_unflushed)
        finally:
            self._tell_losses()
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    def _tell_losses(self) -> None:
        """What neither the database nor the journal took ends with the process."""
        lost = self._at_risk + sum(segment.at_risk for segment in self._sealed)
        if lost:
            self.lost_characters += lost
            logger.error("usage is lost: neither the database nor the disk took it", characters=lost)

    # The running segment

    def _write(self, entry: UsageEntry) -> None:
        if self._journal is None:
            self._at_risk += entry.characters
            return
        try:
            self._journal.append(encode(entry))
        except OSError as error:
            if self._is_journaled:
                logger.error("usage journal cannot be written; kept in memory", reason=error.strerror or str(error))
            self._is_journaled = False
            self._at_risk += entry.characters
        else:
            if self._journal.size > MAX_SEGMENT_BYTES:
                self._make_room()

    def _make_room(self) -> bool:
        """Seal the running segment early, if its memory can be given back: if the journal has all of it."""
        if self._journal is None or not self._is_journaled:
            return False
        self._seal(keep=False)
        return True

    def _seal(self, *, keep: bool) -> None:
        entries = tuple(self._sums.values()) if keep else None
        segment = self._journal.seal() if self._journal is not None else ""
        in_journal = bool(segment) and self._is_journaled
        self._sealed.append(_Sealed(segment or uuid.uuid4().hex, entries, in_journal, at_risk=self._at_risk))
        self._sums, self._at_risk = {}, 0
        self._is_journaled = self._journal is not None

    # Sealed segments

    async def _send_sealed(self, store: UsageSink) -> set[str]:
        """All sealed segments, the oldest first; the accounts that were in them."""
        touched: set[str] = set()
        while self._sealed:
            segment = self._sealed[0]
            try:
                entries = await self._entries(segment)
            except OSError as error:  # it stays where it is: the next start tries again
                logger.error("usage journal cannot be read", segment=segment.id, reason=error.strerror or str(error))
            else:
                await self._send(store, segment, entries)
                touched.update(entry.account for entry in entries)
            self._sealed.popleft()
        return touched

    async def _entries(self, segment: _Sealed) -> tuple[UsageEntry, ...]:
        """What a segment sums up to. Raises OSError."""
        if segment.entries is not None:
            return segment.entries
        assert self._journal is not None
        found, num_damaged = await asyncio.to_thread(self._journal.read, segment.id)
        if num_damaged:
            segment.is_damaged = True
            logger.warning("usage journal: damaged records are set aside", segment=segment.id, records=num_damaged)
        return tuple((await asyncio.to_thread(_summed, found)).values())

    async def _send(self, store: UsageSink, segment: _Sealed, entries: tuple[UsageEntry, ...]) -> None:
        try:
            await store.book_usage(UsageBatch(segment.id, entries))
        except StoreUnavailable:
            raise
        except NllbdError as error:
            await self._set_aside(segment, entries, error)
        else:
            await self._count_stored(segment, entries)
            if self._journal is not None:
                done = self._journal.set_aside if segment.is_damaged else self._journal.drop
                await self._touch_disk(done, segment.id)

    async def _set_aside(self, segment: _Sealed, entries: tuple[UsageEntry, ...], error: NllbdError) -> None:
        """The database will never take this: keep it for a person, and let the rest pass."""
        if self._journal is not None and segment.in_journal:
            await self._touch_disk(self._journal.set_aside, segment.id)
        else:
            self.lost_characters += sum(entry.characters for entry in entries)
        logger.error("usage was refused by the database", segment=segment.id, reason=error.message)

    async def _count_stored(self, segment: _Sealed, entries: tuple[UsageEntry, ...]) -> None:
        month = self._this_month()
        for index, entry in enumerate(entries):
            if index % _ENTRIES_A_TURN == _ENTRIES_A_TURN - 1:
                await asyncio.sleep(0)
            if _month_of(entry.day) != month or month != self._month:
                continue
            self._stored[entry.account] = self._stored.get(entry.account, 0) + entry.characters
            if segment.is_ours and entry.account in self._unflushed:
                self._unflushed[entry.account] -= entry.characters
                if self._unflushed[entry.account] <= 0:
                    del self._unflushed[entry.account]

    async def _refresh_totals(self, store: UsageSink, accounts: set[str], limited: set[str]) -> None:
        """What all hosts booked on these accounts; of those with quotas, `limited`, it is noted that we know it."""
        if not accounts:
            return
        month, asked_at = self._this_month(), self._clock()
        totals = await store.usage_totals(*_days_of(month), accounts)
        if month == self._this_month():
            self._stored |= totals
            self._asked_at |= dict.fromkeys(limited, asked_at)

    # Quotas

    def _want(self, account: str) -> None:
        """Have the database asked about an account with a quota, unless it was a moment ago."""
        if self._clock() - self._asked_at.get(account, -math.inf) > STALE_S and account not in self.wanted:
            self._asked_at.setdefault(account, -math.inf)
            self.wanted.add(account)
            self.is_wanted.set()

    def _is_followed(self, account: str) -> bool:
        """Whether memory knows what an account has not in the database yet: of all that have quotas, of others while
        there is room."""
        return account in self._unflushed or account in self._asked_at or len(self._unflushed) < MAX_ACCOUNTS

    async def _settle(self) -> None:
        """The database is away: take out of memory what the journal has, and see that it is on the disk."""
        if self._journal is None:
            return
        for segment in list(self._sealed):
            if segment.in_journal and segment.entries is not None:
                await self._touch_disk(self._shrink, segment)
        await self._touch_disk(self._journal.sync)

    async def _touch_disk(self, work: Callable[..., object], *arguments: object) -> None:
        """File work in a thread. A disk that fails is told to the log; the figures in memory and database stand."""
        try:
            await asyncio.to_thread(work, *arguments)
        except OSError as error:
            logger.error("usage journal", reason=error.strerror or str(error))

    def _shrink(self, segment: _Sealed) -> None:
        assert self._journal is not None
        if self._journal.size_of(segment.id) > _SHRINK_ABOVE_BYTES:
            entries, _ = self._journal.read(segment.id)
            self._journal.shrink(segment.id, _summed(entries).values())
        segment.entries = None

    # This month

    def _this_month(self) -> tuple[int, int]:
        month = _month_of(self._today())
        if month != self._month:
            self._month = month
            self._stored = {}
            self._unflushed.clear()
            # A clock that was wrong for a while has us come back to a month in which something was used.
            self._asked_at = dict.fromkeys(self._asked_at, -math.inf)
        return month


def _add(one: UsageEntry, other: UsageEntry) -> UsageEntry:
    return UsageEntry(
        one.account,
        one.day,
        one.characters + other.characters,
        one.requests + other.requests,
        one.segments + other.segments,
        one.source_tokens + other.source_tokens,
        one.target_tokens + other.target_tokens,
    )


def _summed(entries: Collection[UsageEntry]) -> _Sums:
    sums: _Sums = {}
    for entry in entries:
        key = (entry.account, entry.day)
        known = sums.get(key)
        sums[key] = entry if known is None else _add(known, entry)
    return sums


def _month_of(day: date) -> tuple[int, int]:
    return day.year, day.month


def _days_of(month: tuple[int, int]) -> tuple[date, date]:
    """The first and the last day of a month."""
    year, number = month
    next_first = date(year + number // 12, number % 12 + 1, 1)
    return date(year, number, 1), next_first - timedelta(days=1)


def _seconds_to_next_month() -> float:
    now = datetime.now(UTC)
    _, last = _days_of((now.year, now.month))
    return (datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1) - now).total_seconds()
