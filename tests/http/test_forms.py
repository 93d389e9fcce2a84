"""Forms: whatever goes in comes out; what is malformed is refused, and nothing takes long."""

from __future__ import annotations

import time
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.errors import InvalidValue
from nllbd.http import forms

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=8)


@given(PAIRS)
def test_what_was_urlencoded_comes_back(pairs: list[tuple[str, str]]) -> None:
    kept = [pair for pair in pairs if any(pair)]
    assert forms.parse_urlencoded(urlencode(kept).encode()) == kept


@given(st.lists(st.tuples(st.text("abcé", min_size=1, max_size=5), TEXTS), min_size=1, max_size=5))
def test_what_was_sent_in_parts_comes_back(pairs: list[tuple[str, str]]) -> None:
    body = b"".join(
        b'--bound\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in pairs
    )
    parts = forms.parse_multipart(body + b"--bound--\r\n", "bound")
    assert list(forms.text_pairs(parts)) == pairs


@given(st.binary(max_size=200), st.sampled_from(["B", "", "--", "é", "x" * 71]))
def test_any_bytes_are_parsed_or_refused(body: bytes, boundary: str) -> None:
    for parse in (lambda: forms.parse_urlencoded(body), lambda: forms.parse_multipart(b"--B" + body, boundary)):
        with suppress(InvalidValue):
            parse()


def test_files_are_told_from_fields() -> None:
    head = b'--B\r\nContent-Disposition: form-data; filename="a;\\"b.txt"; name=f\r\nContent-Type: x/y\r\n\r\n'
    (part,) = forms.parse_multipart(head + b"\x00\xff\r\n--B--", "B")
    assert part == forms.Part("f", 'a;"b.txt', b"\x00\xff")
    assert list(forms.text_pairs([part])) == []


def test_a_repeated_name_has_a_list() -> None:
    assert forms.fields([("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]) == {"a": ["1", "3", "4"], "b": "2"}


@pytest.mark.parametrize("body", [b"a=1&" * 1001, b"a=%ff", "a=é".encode(), b"a=\xff"])
def test_refused_forms(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        forms.parse_urlencoded(body)


def test_a_megabyte_of_nonsense_takes_no_time() -> None:
    started = time.monotonic()
    for filler in (b"; a", b'; name="' + b"\\" * 50, b"\r\n--B", b"--B\r\n\r\n", b'"; x="'):
        body = b"--B\r\nContent-Disposition: form-data" + filler * (1_000_000 // len(filler)) + b"\r\n--B--"
        with pytest.raises(InvalidValue):
            forms.parse_multipart(body, "B")
    assert time.monotonic() - started < 10
