"""Figures out of scrapes: rates, percentiles, and what is not there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.commands.top_figures import compare, parse_scrape, quantile

BEFORE = """
nllbd_info{version="1.2",model="demo",device="cpu",dtype="int8"} 1
nllbd_engine_state{state="ready"} 1
nllbd_engine_state{state="failed"} 0
nllbd_tokens_total{kind="target"} 100
nllbd_rejected_total{reason="overloaded"} 5
nllbd_errors_total{code="overloaded"} 5
nllbd_errors_total{code="internal"} 2
nllbd_cache_requests_total{result="miss"} 10
nllbd_cache_requests_total{result="memory"} 10
translation_duration_seconds_bucket{le="0.1"} 10
translation_duration_seconds_bucket{le="1.0"} 10
translation_duration_seconds_bucket{le="+Inf"} 10
translation_duration_seconds_count 10
"""
AFTER = """
nllbd_info{version="1.2",model="demo",device="cpu",dtype="int8"} 1
nllbd_engine_state{state="ready"} 1
nllbd_engine_state{state="failed"} 0
nllbd_num_sequences_running 3
nllbd_batch_lanes 12
nllbd_tokens_total{kind="target"} 500
nllbd_rejected_total{reason="overloaded"} 9
nllbd_rejected_total{reason="unauthorized"} 2
nllbd_errors_total{code="overloaded"} 9
nllbd_errors_total{code="unauthorized"} 2
nllbd_errors_total{code="internal"} 2
nllbd_cache_requests_total{result="miss"} 11
nllbd_cache_requests_total{result="memory"} 13
translation_duration_seconds_bucket{le="0.1"} 10
translation_duration_seconds_bucket{le="1.0"} 30
translation_duration_seconds_bucket{le="+Inf"} 30
translation_duration_seconds_count 30
"""
ENGINE = {
    "scheduler": {"max_num_lanes": 64},
    "clients": [
        {"client": "key:a", "num_lanes": 8, "num_waiting": 1},
        {"client": "key:a", "num_lanes": 4, "num_waiting": 2},
    ],
    "accounts": [
        {"account": "key:a", "requests_per_s": 2.0, "characters_per_s": 50.0, "refused_per_s": 0.5},
        {"account": "key:b", "requests_per_s": 1.0, "characters_per_s": 5.0, "refused_per_s": 0.0},
    ],
}


def test_what_happened_between_two_looks() -> None:
    figures = compare(parse_scrape(AFTER, 14.0), parse_scrape(BEFORE, 10.0), ENGINE)
    assert (figures.version, figures.model, figures.state) == ("1.2", "demo", "ready")
    assert (figures.lanes, figures.max_lanes, figures.running) == (12, 64, 3)
    assert (figures.tokens_per_s, figures.translations_per_s) == (100.0, 5.0)
    assert figures.p50_ms == pytest.approx(550.0)
    assert figures.rejected_per_s == {"overloaded": 1.0, "unauthorized": 0.5}
    assert (figures.rejected_total, figures.errors_total) == (11, 2)
    assert figures.cache_hit_ratio == pytest.approx(0.75)
    assert figures.step_p95_ms is None
    assert figures.accounts is not None
    assert [(it.account, it.num_lanes, it.num_waiting) for it in figures.accounts] == [
        ("key:a", 12, 3),
        ("key:b", 0, 0),
    ]


def test_a_daemon_that_was_restarted_counts_from_nought() -> None:
    figures = compare(parse_scrape(BEFORE, 14.0), parse_scrape(AFTER, 10.0), None)
    assert figures.tokens_per_s == 25.0
    assert (figures.max_lanes, figures.accounts) == (None, None)


@pytest.mark.parametrize("text", ["", "<html>", "some_metric 1\n"])
def test_what_is_no_scrape_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_scrape(text, 0.0)


@given(st.lists(st.floats(0.0, 9.99), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_its_value(values: list[float], share: float) -> None:
    bounds = [1.0, 2.0, 5.0, 10.0, math.inf]
    found = quantile(share, {bound: float(sum(value <= bound for value in values)) for bound in bounds})
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    assert found is not None
    assert lower <= found <= upper + 1e-9


def test_quantiles_of_nothing_and_of_the_boundless() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {1.0: 0.0, math.inf: 0.0}) is None
    assert quantile(0.5, {1.0: 0.0, math.inf: 3.0}) == 1.0
