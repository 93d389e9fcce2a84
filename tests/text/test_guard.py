from __future__ import annotations

import sys
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.languages import BY_CODE, resolve
from nllbd.sched.sequence import SearchParams
from nllbd.text import guard
from nllbd.text.guard import RETRIES, WARNINGS, check, retry_params

ENGLISH, FRENCH, GERMAN, CHINESE, RUSSIAN = (resolve(name) for name in ("en", "fr", "de", "zh", "ru"))


def test_false_alarms_on_human_translations(held_out) -> None:
    """Every pair of the held-out rows, in every direction: people's translations deserve no warning."""
    alarms: Counter[str] = Counter()
    pairs = 0
    for row in held_out:
        for source, target in permutations(row, 2):
            if row[source] and row[target]:
                pairs += 1
                alarms.update(check(row[source], row[target], BY_CODE[source], BY_CODE[target]))
    sys.stdout.write(f"\n{pairs} human translations, false alarms: {dict(alarms) or 'none'}\n")
    assert pairs >= 12_000
    assert alarms.total() <= pairs / 10_000


@pytest.mark.parametrize(
    "output",
    [
        "Malynisseur de vie vie vie vie vie vie vie",
        "Firefox d’envoi de paiement de paiement de paiement de paiement.",
        "Die Datenquellen, die die für die FOUUENVERTERTERTERTERTE-Einstellungen",
        "WAHRINININININININININININ",
        "hahahahahaha",
        "le chat est sur la table le chat est sur la table le chat est sur la table",
    ],
)
def test_loops_are_seen(output: str) -> None:
    assert "repetition" in check("A valve that was discovered in the room.", output, ENGLISH, FRENCH)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("ha ha ha ha ha", "ha ha ha ha ha"),
        ("very, very good", "très très bien"),
        ("We got up.", "Nous nous sommes levés."),
        ("1 000 000 000 inhabitants", "1 000 000 000 habitants"),
        ("Number 1111111111", "Numéro 1111111111"),
        ("La la la la la la!", "La la la la la la !"),
        ("It is 11:11:11.", "Il est 11:11:11."),
    ],
)
def test_language_is_no_loop(source: str, output: str) -> None:
    assert check(source, output, ENGLISH, FRENCH) == []


def test_a_loop_of_the_source_excuses_no_stutter() -> None:
    assert "repetition" in check("Hello" * 50, "H" * 40 + "ell" * 30, ENGLISH, FRENCH)
    assert "repetition" in check("Hello" * 50, "Helloooooooooo", ENGLISH, FRENCH)
    for source, output in (("Hello" * 5, "Hola" * 5), ("hahahahaha", "jajajajaja"), ("Nooooooo", "Neiiiiin")):
        assert check(source, output, ENGLISH, FRENCH) == []
    assert check("Hello" * 5, "你好" * 5, ENGLISH, CHINESE) == []


def test_empty() -> None:
    assert check("Hello.", "", ENGLISH, FRENCH) == ["empty"]
    assert check("Hello.", " .", ENGLISH, FRENCH) == ["empty"]
    assert check("Hello.", "⁇", ENGLISH, FRENCH) == ["empty", "unk"]


def test_length_ratio() -> None:
    long = "This sentence goes on for quite a while, and it says a number of different things about the world."
    assert check(long, "Oui.", ENGLISH, FRENCH) == ["length_ratio"]
    assert check("Yes.", long, FRENCH, ENGLISH) == ["length_ratio"]
    assert check(long, "这个句子很长，它说了很多关于这个世界的不同的事情。", ENGLISH, CHINESE) == []
    assert check("OK", "D'accord, pas de problème", ENGLISH, FRENCH) == []


def test_wrong_script() -> None:
    assert check("How are you today?", "How are you today?", ENGLISH, RUSSIAN) == []  # copied words are not judged
    assert check("How are you today?", "Comment allez-vous ?", ENGLISH, RUSSIAN) == ["wrong_script"]
    assert check("How are you today?", "你今天好吗你好", ENGLISH, FRENCH) == ["wrong_script"]
    assert check("I bought an iPhone 15 Pro Max", "Я купил iPhone 15 Pro Max", ENGLISH, RUSSIAN) == []
    assert check("My name is Tom.", "我叫 Tom。", ENGLISH, CHINESE) == []


def test_unk() -> None:
    assert check("It's hot.", "⁇a va.", ENGLISH, FRENCH) == ["unk"]
    assert check("It's hot.", "<unk>a va.", ENGLISH, FRENCH) == ["unk"]


@given(st.text(), st.text(), st.sampled_from([ENGLISH, CHINESE, RUSSIAN]))
def test_any_strings(source: str, output: str, target) -> None:
    found = check(source, output, ENGLISH, target)
    assert set(found) <= set(WARNINGS)
    assert len(set(found)) == len(found)


def test_retries_search_wider_within_the_cap() -> None:
    greedy = SearchParams(num_beams=1)
    assert retry_params(["repetition"], greedy, 8) == SearchParams(num_beams=8, length_penalty=0.5)
    assert retry_params(["repetition"], greedy, 4) == SearchParams(num_beams=4, length_penalty=0.5)
    assert retry_params(["repetition"], SearchParams(num_beams=8), 8) == SearchParams(num_beams=8, length_penalty=0.5)
    assert retry_params(["wrong_script"], SearchParams(num_beams=8), 8) is None
    assert retry_params(["unk", "length_ratio", "truncated"], greedy, 8) is None
    assert retry_params([], greedy, 8) is None
    assert set(RETRIES) <= set(WARNINGS)


@given(st.text("abc1é", min_size=2, max_size=16), st.integers(2, 5), st.text("abcd", max_size=6))
def test_what_loops_is_never_taken_for_distinct(unit: str, times: int, around: str) -> None:
    """The quick look that spares most outputs the search for loops lets every loop through."""
    letters = around + unit * times + around
    if guard._LETTER_LOOP.search(letters):
        assert guard._may_loop(letters)


@given(st.lists(st.sampled_from(["ha", "the", "of", "and", "7"]), max_size=12))
def test_distinct_words_never_repeat(words: list[str]) -> None:
    if len(set(words)) == len(words):
        assert all(guard._max_repeats(words, n) <= limit for n, limit in guard._MAX_WORD_REPEATS.items())
