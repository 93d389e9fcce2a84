"""The busiest accounts: found among any number of others, forgotten when they stop, never more than there is room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.busiest import WINDOW_S, BusyAccounts


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_of_what_was_recorded() -> None:
    clock = Clock()
    accounts = BusyAccounts(clock=clock)
    for _ in range(60):
        accounts.record("a", 100, refused=False)
    accounts.record("b", 0, refused=True)
    first, second = accounts.top(5)
    assert (first.account, first.requests_per_s) == ("a", pytest.approx(60 / WINDOW_S))
    assert first.characters_per_s == pytest.approx(6000 / WINDOW_S)
    assert (second.account, second.refused_per_s) == ("b", pytest.approx(1 / WINDOW_S))
    assert [busy.account for busy in accounts.top(1)] == ["a"]
    clock.now = 10 * WINDOW_S
    assert accounts.top(1)[0].requests_per_s < 0.001


@given(st.lists(st.integers(0, 10_000), max_size=400))
def test_memory_is_bounded_and_a_heavy_account_is_never_pushed_out(others: list[int]) -> None:
    clock = Clock()
    accounts = BusyAccounts(capacity=8, clock=clock)
    for number in others:
        clock.now += 0.01
        accounts.record(f"other {number}", 10, refused=False)
        accounts.record("heavy", 10, refused=False)
        accounts.record("heavy", 10, refused=False)
        assert len(accounts) <= 8
    if others:
        assert accounts.top(1)[0].account == "heavy"


def test_a_newcomer_is_not_shown_with_another_s_rate() -> None:
    accounts = BusyAccounts(capacity=1, clock=Clock())
    for _ in range(50):
        accounts.record("old", 0, refused=False)
    accounts.record("new", 0, refused=False)
    (only,) = accounts.top(5)
    assert (only.account, only.requests_per_s) == ("new", pytest.approx(1 / WINDOW_S))
