from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.text.resplit import resplit


def words(text: str) -> int:
    return len(text.split())


def parts(text: str, max_tokens: int, count=words) -> list[str]:
    return [text[start:end].strip() for start, end in resplit(text, max_tokens, count)]


@given(st.text(max_size=200), st.integers(1, 20))
def test_covers_the_text_and_keeps_the_limit(text: str, max_tokens: int) -> None:
    spans = resplit(text, max_tokens, len)
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(text)
    for start, end in spans:
        assert len(text[start:end].strip()) <= max_tokens
        assert end > start or not text


def test_short_text_is_one_part() -> None:
    assert resplit("a b c", 3, words) == [(0, 5)]
    assert resplit("", 3, words) == [(0, 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d e! f g h i", ["a b c d e!", "f g h i"]),
        ("a b, c d e! f g h", ["a b, c d e!", "f g h"]),
        ("a b c d, e f g h i", ["a b c d,", "e f g h i"]),
        ("a b c d e f g h", ["a b c", "d e f g h"]),
        ('a b c "d e." f g h', ['a b c "d e."', "f g h"]),
        ("a b c (d e) f g h", ["a b c (d e)", "f g h"]),
    ],
)
def test_best_place_first(text: str, expected: list[str]) -> None:
    assert parts(text, 5) == expected


def test_chinese_needs_no_spaces() -> None:
    assert parts("我们去了北京，然后又去了上海。", 10, len) == ["我们去了北京，", "然后又去了上海。"]


def test_spans_are_not_cut_at_their_spaces() -> None:
    tag = '<a href="1 2 3 4 5 6 7 8 9">'
    assert all(tag in part or "<" not in part for part in parts(f"a b c d {tag} e f g h", 12))


def test_clusters_stay_together() -> None:
    family = "👨‍👩‍👧"
    assert all(part.count("👨") == part.count("👧") for part in parts(family * 20, 12, len))
    assert all(not part.startswith("\u0301") for part in parts("e\u0301" * 50, 7, len))


def test_a_cluster_longer_than_the_limit_is_cut_all_the_same() -> None:
    assert "".join(parts("a" + "\u0301" * 1000, 100, len)) == "a" + "\u0301" * 1000


def test_parts_are_balanced() -> None:
    sizes = [words(part) for part in parts("word " * 210, 200)]
    assert sizes == [105, 105]


def test_a_character_of_many_tokens_ends_the_search() -> None:
    assert parts("ab", 1, lambda text: 5 * len(text)) == ["a", "b"]
