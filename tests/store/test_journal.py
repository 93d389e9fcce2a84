from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.store.journal import Journal, decode, encode
from nllbd.store.records import UsageEntry

DAY = date(2026, 3, 1)
ENTRY = UsageEntry("key:a", DAY, 11, 1, 2, 3, 4)

_count = st.integers(0, 2**62)
entries = st.builds(
    UsageEntry,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.dates(),
    _count,
    _count,
    _count,
    _count,
    _count,
)


@given(st.lists(entries, max_size=8))
def test_records_come_back(booked: list[UsageEntry]) -> None:
    assert decode(b"".join(map(encode, booked))) == (booked, 0)


@given(st.lists(entries, min_size=1, max_size=5), st.data())
def test_a_torn_end_costs_the_torn_record_only(booked: list[UsageEntry], data: st.DataObject) -> None:
    content = b"".join(map(encode, booked))
    end = data.draw(st.integers(0, len(content)))
    found, num_damaged = decode(content[:end])
    assert found == booked[: len(found)]
    assert len(found) in (content[:end].count(b"\n"), content[:end].count(b"\n") + 1)  # + 1: only the break is missing
    assert num_damaged == 0


@given(st.lists(entries, min_size=1, max_size=5), st.data())
def test_a_flipped_bit_never_makes_another_figure(booked: list[UsageEntry], data: st.DataObject) -> None:
    content = bytearray(b"".join(map(encode, booked)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    found, _ = decode(bytes(content))
    assert all(entry in booked for entry in found)


@given(st.binary(max_size=200))
def test_rubbish_is_no_record(rubbish: bytes) -> None:
    assert decode(rubbish)[0] == []


def test_segments_hold_what_was_written_between_seals(tmp_path: Path) -> None:
    journal, left = Journal.open(tmp_path)
    assert left == []
    assert journal.seal() == ""
    for _ in range(3):
        journal.append(encode(ENTRY))
    first = journal.seal()
    journal.append(encode(ENTRY))
    second = journal.seal()
    assert first != second
    assert journal.read(first) == ([ENTRY] * 3, 0)
    assert journal.read(second) == ([ENTRY], 0)
    journal.drop(first)
    journal.drop(first)
    with pytest.raises(FileNotFoundError):
        journal.read(first)


def test_a_shrunken_segment_keeps_its_name(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for _ in range(100):
        journal.append(encode(ENTRY))
    segment = journal.seal()
    before = journal.size_of(segment)
    total = UsageEntry("key:a", DAY, 1100, 100, 200, 300, 400)
    journal.shrink(segment, [total])
    assert journal.read(segment) == ([total], 0)
    assert journal.size_of(segment) < before / 50


def test_what_a_dead_daemon_left_is_taken_over_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from nllbd.store.journal import *; from datetime import date;"
        "j, _ = Journal.open(Path(sys.argv[1])); e = encode(UsageEntry('key:a', date(2026, 3, 1), 11, 1, 2, 3, 4));"
        "j.append(e); j.seal(); j.append(e); j.append(e); print(j.segment); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert dead.returncode == -9, dead.stderr
    journal, left = Journal.open(tmp_path)
    assert journal.read(dead.stdout.strip()) == ([ENTRY, ENTRY], 0)
    assert sorted(len(journal.read(segment)[0]) for segment in left) == [1, 2]
    assert len([it for it in tmp_path.iterdir() if it.is_dir()]) == 1


def test_living_daemons_keep_their_own(tmp_path: Path) -> None:
    first, _ = Journal.open(tmp_path)
    first.append(encode(ENTRY))
    second, left = Journal.open(tmp_path)
    assert left == []
    second.append(encode(ENTRY))
    assert first.segment != second.segment
    first.close()
    third, left = Journal.open(tmp_path)
    assert len(left) == 1
    assert third.read(left[0]) == ([ENTRY], 0)
    second.close()


def test_a_journal_without_bookings_leaves_nothing(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.append(encode(ENTRY))
    journal.drop(journal.seal())
    journal.close()
    assert [it for it in tmp_path.iterdir() if it.is_dir()] == []


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "state" / "usage")
    journal.append(encode(ENTRY))
    files = list((tmp_path / "state").rglob("*"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_a_record_that_the_disk_took_half_of_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.append(encode(ENTRY))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="part"):
            journal.append(encode(ENTRY))
    journal.append(encode(ENTRY))
    assert journal.read(journal.seal()) == ([ENTRY, ENTRY], 1)
