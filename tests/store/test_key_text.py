from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.store import key_text


def test_a_new_key_has_the_form_and_its_id() -> None:
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    assert key_text.is_key_text(text)
    assert text.split("_")[:2] == ["nllbd", key_id]
    assert key_text.new_text(key_id) != text
    assert key_text.digest(text) == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize("change", [str.upper, lambda it: it + "\n", lambda it: it[:-1], lambda it: " " + it])
def test_what_is_nearly_a_key_is_none(change: object) -> None:
    assert not key_text.is_key_text(change(key_text.new_text(key_text.new_id())))  # type: ignore[operator]


@given(st.text(alphabet=st.characters()))
def test_any_text_has_a_digest(text: str) -> None:
    assert len(key_text.digest(text)) == 32
    assert not key_text.is_key_text(text)
