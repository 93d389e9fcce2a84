from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.config import kinds
from nllbd.config.kinds import Kind
from nllbd.config.table import ROWS


def read(kind: Kind, raw: Any) -> Any:
    value = kind.parse(raw)
    kind.check(value)
    return value


@given(raw=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_every_kind_takes_or_refuses_anything(raw: Any) -> None:
    for row in ROWS:
        try:
            value = read(row.kind, raw)
        except ValueError:
            continue
        assert read(row.kind, row.kind.write(value)) == value or row.kind.name in ("list", "path", "seconds", "number")


@given(value=st.integers(0, 2**63 - 1))
def test_counts_and_sizes_are_read_back(value: int) -> None:
    for kind in (kinds.count(), kinds.byte_count()):
        assert read(kind, kind.write(value)) == read(kind, str(value)) == read(kind, value) == value


@given(value=st.floats(0, 86400, allow_nan=False))
def test_numbers_and_durations_are_read_back(value: float) -> None:
    for kind in (kinds.number(0, 1e6), kinds.seconds()):
        assert read(kind, kind.write(value)) == value


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("4096", 4096),
        ("4k", 4096),
        ("64KiB", 65536),
        ("64 kib", 65536),
        ("1MiB", 1 << 20),
        ("1.5 GB", 1_500_000_000),
        ("2T", 2 << 40),
        ("10b", 10),
    ],
)
def test_sizes_have_units(written: str, count: int) -> None:
    assert read(kinds.byte_count(), written) == count


@pytest.mark.parametrize(
    ("written", "duration"),
    [("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1.5h", 5400.0), ("1d", 86400.0)],
)
def test_durations_have_units(written: str, duration: float) -> None:
    assert read(kinds.seconds(), written) == pytest.approx(duration)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (kinds.count(), "１２"),
        (kinds.count(), "1.0"),
        (kinds.count(), "-1"),
        (kinds.count(), "9" * 5000),
        (kinds.count(), 10**30),
        (kinds.count(), True),
        (kinds.count(), 1.0),
        (kinds.byte_count(), "1.3"),
        (kinds.byte_count(), "1 parsec"),
        (kinds.byte_count(), "1e999"),
        (kinds.byte_count(1), "-1"),
        (kinds.seconds(), "nan"),
        (kinds.seconds(), "inf"),
        (kinds.seconds(), float("nan")),
        (kinds.seconds(), "1e400"),
        (kinds.seconds(), "-1s"),
        (kinds.number(0, 1), "0.5s"),
        (kinds.flag(), "maybe"),
        (kinds.flag(), 1),
        (kinds.flag_or("never"), "always"),
        (kinds.text(), ""),
        (kinds.text(), "a\0b"),
        (kinds.choice("a"), "b"),
        (kinds.path(), 3),
        (kinds.url("redis"), "http://x"),
        (kinds.url("redis"), "redis://[x"),
        (kinds.many("origins", kinds.origin), "https://a.example/path"),
        (kinds.many("origins", kinds.origin), "a.example"),
        (kinds.many("networks", kinds.network), "10.0.0.0/33"),
        (kinds.many("networks", kinds.network), ["10.0.0.1", 3]),
    ],
)
def test_nonsense_is_a_value_error(kind: Kind, raw: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - kinds raise it bare; the table words the refusal
        read(kind, raw)


def test_lists_come_as_text_and_as_arrays() -> None:
    kind = kinds.many("origins", kinds.origin)
    assert read(kind, " https://a.example, https://b.example:8443 ,") == ("https://a.example", "https://b.example:8443")
    assert read(kind, ["*"]) == ("*",)


def test_paths_expand_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read(kinds.path(), "~/models") == Path("/home/me/models")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@cache:6379/0", "redis://***@cache:6379/0"),
        ("redis://user:hunter2@cache", "redis://***@cache"),
        ("redis://cache/0?password=hunter2", "redis://cache/0?***"),
        ("redis://user:hun@ter2@cache", "redis://***@cache"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, masked: str) -> None:
    assert kinds.mask_url(url) == masked
