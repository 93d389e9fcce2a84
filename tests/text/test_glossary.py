"""Terms are found as whole words, hidden, and put back; without terms nothing changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.text.glossary import Glossary, restore
from nllbd.text.spans import find_spans

WORDS = st.text("abAB{}g01 .'é日", min_size=1, max_size=12)


def translated(text: str, entries: dict[str, str], *, spaces: bool = True) -> str:
    masked = Glossary(entries, spaces=spaces).mask(text)
    return restore(masked.text, masked.terms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The file menu", "The Datei Ansicht"),
        ("File menu, file.", "Datei Ansicht, Datei."),
        ("profile files FILE", "profile files FILE"),
        ("a user file here", "a NUTZERDATEI here"),
        ("(file)'file'", "(Datei)'Datei'"),
        ("I use .NET", "I use Punktnetz"),
        ("", ""),
    ],
)
def test_terms_are_whole_words_and_the_longest_counts(text: str, expected: str) -> None:
    entries = {"file": "Datei", "menu": "Ansicht", "user file": "NUTZERDATEI", ".NET": "Punktnetz"}
    assert translated(text, entries) == expected


def test_a_capital_at_the_start_of_a_sentence_is_kept() -> None:
    assert translated("Rain. rain.", {"rain": "pluie"}) == "Pluie. pluie."
    assert translated("Rain. rain.", {"Rain": "Pluie"}) == "Pluie. rain."
    assert translated("Rain. rain.", {"rain": "pluie", "Rain": "M. Rain"}) == "M. Rain. pluie."


def test_scripts_without_spaces() -> None:
    assert translated("今日は東京です", {"東京": "Tokyo"}, spaces=False) == "今日はTokyoです"
    assert translated("今日は東京です", {"東京": "Tokyo"}) == "今日は東京です"


@given(WORDS, st.dictionaries(WORDS, WORDS, max_size=4))
def test_what_is_no_term_stays(text: str, entries: dict[str, str]) -> None:
    """A term that is translated by itself leaves the text as it was, whatever braces it has."""
    same = {term: term for term in entries}
    masked = Glossary(same).mask(text)
    assert restore(masked.text, masked.terms) == text
    assert all(placeholder not in text for placeholder in masked.terms)


@given(st.integers(1, 40))
def test_placeholders_are_protected(number: int) -> None:
    masked = Glossary({"word": "mot"}).mask(" and ".join(["word"] * number))
    spans = [masked.text[start:end] for start, end in find_spans(masked.text)]
    assert spans == list(masked.terms)
    assert len(masked.terms) == number


def test_a_large_glossary_is_quick_to_apply() -> None:
    """Terms are found by their first word: the number of others does not matter."""
    glossary = Glossary({f"term{i} of many": f"t{i}" for i in range(20_000)})
    assert len(glossary.mask("a term7 of many " * 300).terms) == 300
