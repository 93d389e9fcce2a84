"""What lies in Redis: readable by us alone, and of use only where, and as long as, we put it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.cache.entry import Entry, Sealer

SEALER = Sealer(b"secret")
NAME, OTHER = b"n" * 32, b"o" * 32
SCALARS = st.text(st.characters(exclude_categories=("Cs",)))
ENTRIES = st.builds(Entry, st.lists(SCALARS, min_size=1, max_size=8).map(tuple), st.lists(SCALARS).map(tuple))
ENTRY = Entry(("Geheimnis",), ("repetition",))


@given(st.binary(min_size=32, max_size=32), ENTRIES, st.floats(0, 1e12))
def test_what_was_sealed_comes_back(name: bytes, entry: Entry, expires_at: float) -> None:
    assert SEALER.open(name, SEALER.seal(name, entry, expires_at)) == (entry, expires_at)


def test_nothing_of_the_text_shows_and_no_two_seals_are_alike() -> None:
    seals = {SEALER.seal(NAME, ENTRY, 1.0) for _ in range(50)}
    assert len(seals) == 50
    assert not any(word in seal for seal in seals for word in (b"Geheimnis", b"repetition"))


@given(st.data())
def test_a_changed_value_is_not_opened(data: st.DataObject) -> None:
    seal = bytearray(SEALER.seal(NAME, ENTRY, 1.0))
    position = data.draw(st.integers(0, len(seal) - 1))
    seal[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="sealed"):
        SEALER.open(NAME, bytes(seal))


@given(st.binary(max_size=200))
def test_garbage_is_not_opened(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SEALER.open(NAME, garbage)


def test_a_value_of_another_name_or_another_secret_is_not_opened() -> None:
    seal = SEALER.seal(NAME, ENTRY, 1.0)
    for sealer, name in ((SEALER, OTHER), (Sealer(b"another"), NAME)):
        with pytest.raises(ValueError, match="sealed"):
            sealer.open(name, seal)


def test_names_and_values_have_different_keys() -> None:
    assert SEALER.name_key != SEALER._value_key
    assert Sealer(b"secret").name_key == SEALER.name_key
