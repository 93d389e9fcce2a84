from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from nllbd.errors import InternalError, QuotaExceeded, StoreUnavailable
from nllbd.store import database, usage
from nllbd.store.journal import Journal
from nllbd.store.names import clean_name
from nllbd.store.records import UsageBatch, UsageEntry
from nllbd.store.store import Store
from nllbd.store.usage import UsageMeter

DAY = date(2026, 3, 31)


@dataclass
class Sink:
    """A store whose faults are scripted. `figures` is what it has booked."""

    figures: Counter[tuple[str, date]] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    is_away: bool = False
    loses_answers: bool = False
    refused: str = ""

    async def book_usage(self, batch: UsageBatch) -> bool:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        if self.refused and any(entry.account == self.refused for entry in batch.entries):
            raise InternalError("the database refused the data")
        is_first = batch.id not in self.seen
        if is_first:
            self.seen.add(batch.id)
            for entry in batch.entries:
                self.figures[entry.account, entry.day] += entry.characters
        if self.loses_answers:
            self.loses_answers = False
            raise StoreUnavailable("the answer was lost")
        return is_first

    async def usage_totals(
        self, first_day: date, last_day: date, accounts: Collection[str] | None = None
    ) -> dict[str, int]:
        if self.is_away:
            raise StoreUnavailable("away")
        totals: Counter[str] = Counter()
        for (account, day), characters in self.figures.items():
            if first_day <= day <= last_day and (accounts is None or account in accounts):
                totals[account] += characters
        return dict(totals)


def entry(characters: int, account: str = "key:a", day: date = DAY) -> UsageEntry:
    return UsageEntry(account, day, characters, 1)


def make_meter(folder: Path | None = None, day: date = DAY) -> UsageMeter:
    journal, left = Journal.open(folder) if folder else (None, [])
    return UsageMeter(journal, left, today=lambda: day)


def find(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


def kill(meter: UsageMeter) -> None:
    """What kill -9 leaves: files and a lock that the kernel let go of."""
    if meter._journal is not None:
        meter._journal.seal()
        os.close(meter._journal._lock)


async def test_bookings_are_seen_at_once_and_reach_the_database(tmp_path: Path) -> None:
    meter, sink = make_meter(tmp_path), Sink()
    meter.book(entry(5))
    meter.book(entry(6))
    meter.book(entry(1, "key:b"))
    assert meter.used_this_month("key:a") == 11
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 11, ("key:b", DAY): 1}
    assert (meter.used_this_month("key:a"), meter.num_unflushed) == (11, 0)
    await meter.flush(sink)
    assert len(sink.seen) == 1
    await meter.close(sink)
    assert find(tmp_path, "*/*") == []


async def test_what_other_hosts_booked_counts_once_the_account_is_used_here() -> None:
    meter, sink = make_meter(), Sink()
    sink.figures["key:a", DAY] = 100
    await meter.load(sink)
    assert meter.used_this_month("key:a") == 100
    sink.figures["key:a", DAY] += 50
    meter.book(entry(1))
    await meter.flush(sink)
    assert meter.used_this_month("key:a") == 151


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def book_elsewhere(sink: Sink, characters: int, account: str = "key:a") -> None:
    sink.figures[account, DAY] += characters


async def test_what_other_hosts_use_of_a_quota_is_known_before_the_account_is_used_here() -> None:
    clock, sink = Clock(), Sink()
    meter = UsageMeter(today=lambda: DAY, clock=clock)
    await meter.refresh(sink, {"key:a"})
    book_elsewhere(sink, 1000)
    clock.now += usage.REFRESH_S
    await meter.refresh(sink, {"key:a"})
    with pytest.raises(QuotaExceeded), meter.hold("key:a", 1, 1000):
        pass
    assert not meter.is_wanted.is_set()


async def test_an_account_with_a_quota_that_comes_after_a_pause_is_asked_for_at_once() -> None:
    clock, sink = Clock(), Sink()
    meter = UsageMeter(today=lambda: DAY, clock=clock)
    book_elsewhere(sink, 1000)
    with meter.hold("key:a", 1, None), meter.hold("key:b", 1, None):
        assert not meter.is_wanted.is_set()  # without a quota nobody waits for figures
    with meter.hold("key:a", 400, 1000):
        meter.book(entry(400))
    assert (meter.is_wanted.is_set(), meter.wanted) == (True, {"key:a"})
    sink.is_away = True
    with pytest.raises(StoreUnavailable):
        await meter.refresh(sink)
    assert meter.wanted == {"key:a"}
    sink.is_away = False
    await meter.refresh(sink)
    assert (meter.is_wanted.is_set(), meter.wanted, meter.used_this_month("key:a")) == (False, set(), 1400)
    with pytest.raises(QuotaExceeded), meter.hold("key:a", 1, 1000):
        pass
    assert not meter.is_wanted.is_set()
    clock.now += usage.STALE_S + 1
    with pytest.raises(QuotaExceeded), meter.hold("key:a", 1, 1000):
        pass
    assert meter.is_wanted.is_set()


async def test_memory_follows_quotas_and_not_every_stranger_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MAX_ACCOUNTS", 10)
    meter, sink = make_meter(tmp_path), Sink(is_away=True)
    for number in range(300):
        meter.book(entry(1, f"jwt:{number}"))
        with meter.hold("key:a", 1, 1000):
            meter.book(entry(1))
    assert len(meter._unflushed) <= 11
    assert meter.num_unflushed <= 10
    assert meter.used_this_month("key:a") == 300
    sink.is_away = False
    await meter.flush(sink)
    assert sink.figures["key:a", DAY] == 300
    assert sum(sink.figures.values()) == 600
    assert meter.used_this_month("key:a") == 300
    assert meter.used_this_month("jwt:299") == 1
    assert not meter._unflushed
    await meter.close(sink)


async def test_what_neither_disk_nor_database_took_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, sink = make_meter(tmp_path), Sink()
    meter.book(entry(5))
    await meter.flush(sink)
    sink.is_away = True
    meter.book(entry(7))
    monkeypatch.setattr(os, "write", _no_space)
    meter.book(entry(11))
    await meter.close(sink)
    monkeypatch.undo()
    assert meter.lost_characters == 11
    again = make_meter(tmp_path)
    sink.is_away = False
    await again.flush(sink)
    assert sink.figures["key:a", DAY] == 12
    await again.close(sink)
    assert again.lost_characters == 0


def _no_space(_file: int, _content: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_lost_answer_does_not_count_twice(tmp_path: Path) -> None:
    meter, sink = make_meter(tmp_path), Sink(loses_answers=True)
    meter.book(entry(5))
    with pytest.raises(StoreUnavailable):
        await meter.flush(sink)
    meter.book(entry(7))
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 12}
    assert meter.used_this_month("key:a") == 12


@pytest.mark.parametrize("has_journal", [True, False])
async def test_an_outage_costs_nothing_and_little_memory(
    tmp_path: Path, has_journal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MAX_SEGMENT_BYTES", 2000)
    meter, sink = make_meter(tmp_path if has_journal else None), Sink(is_away=True)
    for turn in range(10):
        for _ in range(50):
            meter.book(entry(3))
        with pytest.raises(StoreUnavailable):
            await meter.flush(sink)
        assert meter.num_unflushed <= 2, turn
    assert meter.used_this_month("key:a") == 1500
    sink.is_away = False
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 1500}
    assert meter.lost_characters == 0


async def test_more_accounts_than_memory_takes_go_to_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "MAX_ACCOUNTS", 10)
    meter, sink = make_meter(tmp_path), Sink(is_away=True)
    for number in range(95):
        meter.book(entry(1, f"jwt:{number}"))
    assert meter.num_unflushed <= 10
    with pytest.raises(StoreUnavailable):
        await meter.flush(sink)
    kill(meter)
    again = make_meter(tmp_path)
    sink.is_away = False
    await again.flush(sink)
    assert sum(sink.figures.values()) == 95


async def test_without_disk_and_database_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_ACCOUNTS", 10)
    meter = make_meter()
    for number in range(15):
        meter.book(entry(2, f"jwt:{number}"))
    meter.book(entry(2, "jwt:3"))
    assert (meter.num_unflushed, meter.lost_characters) == (10, 10)


async def test_a_full_disk_moves_the_figures_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter, sink = make_meter(tmp_path), Sink()
    meter.book(entry(1))

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        meter.book(entry(2))
        sink.is_away = True
        with pytest.raises(StoreUnavailable):
            await meter.flush(sink)
        meter.book(entry(3))
    sink.is_away = False
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 6}


async def test_what_the_database_refuses_is_set_aside_and_the_rest_passes(tmp_path: Path) -> None:
    meter, sink = make_meter(tmp_path), Sink(refused="bad")
    meter.book(entry(1, "bad"))
    await meter.flush(sink)
    meter.book(entry(2))
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 2}
    assert len(find(tmp_path, "*.kept")) == 1


async def test_records_of_a_later_version_are_kept_for_it(tmp_path: Path) -> None:
    first = make_meter(tmp_path)
    first.book(entry(5))
    assert first._journal is not None
    first._journal.append(b'00000000 ["key:a","2026-03-31",7,1,1,1,1,"a new field"]\n')
    first.book(entry(6))
    kill(first)
    meter, sink = make_meter(tmp_path), Sink()
    await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 11}
    (kept,) = find(tmp_path, "*.kept")
    assert b"a new field" in kept.read_bytes()


async def test_a_segment_that_cannot_be_read_waits_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_meter(tmp_path)
    first.book(entry(5))
    kill(first)
    meter, sink = make_meter(tmp_path), Sink()

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        meter.book(entry(1))
        await meter.flush(sink)
    assert sink.figures == {("key:a", DAY): 1}
    await meter.close(sink)
    last = make_meter(tmp_path)
    await last.flush(sink)
    assert sink.figures == {("key:a", DAY): 6}


@given(st.text(st.characters(), max_size=400))
@settings(max_examples=200)
def test_any_account_name_can_be_booked(name: str) -> None:
    clean = clean_name(name)
    assert len(clean) <= 200
    clean.encode()
    assert "\0" not in clean
    meter = make_meter()
    meter.book(entry(1, name))
    assert meter.used_this_month(name) == 1


def test_long_names_stay_apart() -> None:
    assert clean_name("x" * 300 + "a") != clean_name("x" * 300 + "b")


async def test_every_name_reaches_a_real_database(store: Store) -> None:
    names = ["a\0b", "\ud800", "木" * 500, "jwt:https://id.example:ada", "'; drop table usage; --", ""]
    meter = make_meter()
    for name in names:
        meter.book(entry(1, name))
    await meter.flush(store)
    assert sum((await store.usage_totals(DAY, DAY)).values()) == len(names)
    assert [meter.used_this_month(name) for name in names] == [1] * len(names)


async def test_the_largest_batch_fits_into_its_time(store: Store) -> None:
    """Or it could never be booked."""
    entries = tuple(entry(1, f"jwt:https://id.example:{number}") for number in range(usage.MAX_ACCOUNTS))
    began = time.monotonic()
    assert await store.book_usage(UsageBatch("large", entries))
    assert time.monotonic() - began < database.OPERATION_S


async def test_a_new_month_starts_at_nothing() -> None:
    today = DAY
    meter, sink = UsageMeter(today=lambda: today), Sink()
    meter.book(entry(5))
    today = DAY + timedelta(days=1)
    assert meter.used_this_month("key:a") == 0
    meter.book(entry(2, day=today))
    meter.book(entry(1))  # began before midnight
    assert meter.used_this_month("key:a") == 2
    await meter.flush(sink)
    assert meter.used_this_month("key:a") == 2
    assert sink.figures == {("key:a", DAY): 6, ("key:a", today): 2}


async def test_a_clock_that_was_wrong_for_a_while_gives_no_second_quota() -> None:
    today, sink = [DAY], Sink()
    meter = UsageMeter(today=lambda: today[0], clock=Clock())
    await meter.refresh(sink, {"key:a"})
    with meter.hold("key:a", 1000, 1000):
        meter.book(entry(1000))
    await meter.flush(sink)
    today[0] = DAY + timedelta(days=400)
    with meter.hold("key:a", 1, 1000):
        pass
    await meter.refresh(sink, {"key:a"})
    today[0] = DAY
    meter.used_this_month("key:a")
    await meter.refresh(sink, {"key:a"})
    with pytest.raises(QuotaExceeded), meter.hold("key:a", 1, 1000):
        pass


async def test_requests_at_the_same_time_cannot_pass_a_quota_together() -> None:
    meter = make_meter()
    meter.book(entry(90))
    with meter.hold("key:a", 6, 100):
        with (
            pytest.raises(QuotaExceeded, match="100 characters a month has 4 left") as caught,
            meter.hold("key:a", 5, 100),
        ):
            pass
        assert caught.value.retry_after_s > 0  # type: ignore[operator]
        with meter.hold("key:a", 4, 100), meter.hold("key:b", 100, 100), meter.hold("key:a", 10**9, None):
            meter.book(entry(4))
    with meter.hold("key:a", 6, 100):
        pass
    with pytest.raises(QuotaExceeded), meter.hold("key:a", 7, 100):
        pass


async def test_booking_takes_microseconds(tmp_path: Path) -> None:
    """Orders of magnitude only: bench.micro_store prints the figure."""
    meter = make_meter(tmp_path)
    booked = entry(5)
    spent = []
    for _ in range(2000):
        began = time.perf_counter()
        meter.book(booked)
        spent.append(time.perf_counter() - began)
    assert sorted(spent)[len(spent) // 2] < 1e-3


class Crashes(RuleBasedStateMachine):
    """Daemons that book, flush, lose their database, die and come back: what is booked is what was used, once."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.sink = Sink()
        self.used: Counter[tuple[str, date]] = Counter()
        self.meters = [make_meter(Path(self.folder.name)) for _ in range(2)]

    @rule(which=st.integers(0, 1), name=st.sampled_from("abc"), characters=st.integers(0, 50))
    def book(self, which: int, name: str, characters: int) -> None:
        self.meters[which].book(entry(characters, name))
        self.used[name, DAY] += characters

    @rule(which=st.integers(0, 1), is_away=st.booleans(), loses_answers=st.booleans())
    def flush(self, which: int, is_away: bool, loses_answers: bool) -> None:
        self.sink.is_away, self.sink.loses_answers = is_away, loses_answers
        try:
            asyncio.run(self.meters[which].flush(self.sink))
        except StoreUnavailable:
            assert is_away or loses_answers

    @rule(which=st.integers(0, 1))
    def kill_and_restart(self, which: int) -> None:
        kill(self.meters[which])
        self.meters[which] = make_meter(Path(self.folder.name))

    @rule(which=st.integers(0, 1))
    def end_and_restart(self, which: int) -> None:
        self.sink.is_away = self.sink.loses_answers = False
        asyncio.run(self.meters[which].close(self.sink))
        self.meters[which] = make_meter(Path(self.folder.name))

    @invariant()
    def never_more_than_was_used(self) -> None:
        if hasattr(self, "used"):
            assert all(self.sink.figures[key] <= self.used[key] for key in self.sink.figures)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        self.sink.is_away = self.sink.loses_answers = False
        for meter in self.meters:
            asyncio.run(meter.close(self.sink))
        last = make_meter(Path(self.folder.name))
        asyncio.run(last.close(self.sink))
        assert +self.sink.figures == +self.used
        self.folder.cleanup()


def test_it_adds_up_through_any_history() -> None:
    run_state_machine_as_test(Crashes, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))
