"""The hang limit: never below the floor, never above the cap, and far above whatever was normal here."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nllbd.bridge.pace import Pace


def pace_of(*beats: tuple[int, float]) -> Pace:
    pace = Pace(30.0, 3.0)
    for beat in beats:
        pace.record(*beat)
    return pace


def test_the_cap_holds_until_a_step_was_seen() -> None:
    assert pace_of((0, 0.0)).limit_s(on_trial=False) == 30.0
    assert pace_of((0, 0.0)).limit_s(on_trial=True) == 30.0


def test_a_quick_engine_is_judged_by_the_floor_once_it_is_warm() -> None:
    assert pace_of((1, 0.02)).limit_s(on_trial=False) == 9.0
    assert pace_of((20, 0.02)).limit_s(on_trial=False) == 3.0


def test_a_trial_need_not_warm_up_again() -> None:
    pace = pace_of((1, 0.02))
    pace.begin_life()
    assert pace.limit_s(on_trial=True) == 3.0
    assert pace.limit_s(on_trial=False) == 9.0


def test_an_outlier_is_forgotten_where_all_run() -> None:
    assert pace_of((100, 0.5), (5000, 0.02)).limit_s(on_trial=False) == 3.0


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.001, 30.0)), min_size=1),
    st.booleans(),
)
def test_ten_times_the_longest_recent_step_is_never_a_hang(beats: list[tuple[int, float]], on_trial: bool) -> None:
    pace = pace_of(*beats)
    recent_s = next((longest_s for num_steps, longest_s in reversed(beats) if num_steps), 30.0)
    limit_s = pace.limit_s(on_trial=on_trial)
    assert min(30.0, 10 * recent_s) <= limit_s <= 30.0
    assert limit_s >= 3.0
