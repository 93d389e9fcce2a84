"""Shares and scores on known outputs."""

import pytest

from bench.quality import equal_share, scores


def test_equal_share_compares_id_for_id() -> None:
    assert equal_share([[1, 2], (3,), [4]], [(1, 2), [3], [5]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="zip"):
        equal_share([[1]], [[1], [2]])


def test_a_perfect_translation_scores_a_hundred() -> None:
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    text = ["The train leaves at noon today.", "It is raining in the whole country."]
    assert scores(text, text) == pytest.approx((100.0, 100.0))
    worse = scores(["A train goes.", "Rain."], text)
    assert worse is not None
    assert max(worse) < 50
