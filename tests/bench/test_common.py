"""Statistics on known numbers, and what a result file holds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import common
from bench.common import Spread, figure, percentile, ratio, spread

samples = st.lists(st.floats(0.001, 1e6), min_size=1)


def test_spread_of_known_numbers() -> None:
    assert spread([3, 1, 2]) == Spread(2, 1, 3, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4, 4)


@pytest.mark.parametrize("call", [spread, lambda them: percentile(them, 50)])
def test_nothing_has_no_statistics(call: object) -> None:
    with pytest.raises(ValueError, match="no samples"):
        call([])  # type: ignore[operator]


def test_percentiles_are_samples_by_nearest_rank() -> None:
    hundred = list(range(100, 0, -1))
    assert [percentile(hundred, percent) for percent in (0, 1, 50, 95, 99, 100)] == [1, 1, 50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0
    assert percentile([1, 2, 3, 4], 99) == 4


@given(samples, st.floats(0, 100))
def test_a_percentile_has_so_many_samples_at_or_below(them: list[float], percent: float) -> None:
    found = percentile(them, percent)
    assert found in them
    assert sum(it <= found for it in them) >= percent / 100 * len(them) - 1e-9


def test_a_ratio_is_taken_round_by_round() -> None:
    # the machine was half as fast in the second round: the ratio of the medians would say 1.5 / 1.5
    assert ratio([2.0, 1.0, 3.0], [1.0, 0.5, 3.0]) == Spread(2.0, 1.0, 2.0, 3)


def test_a_ratio_needs_as_many_rounds_of_both() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1234.5, "1,230"), (99.96, "100.0"), (2.5, "2.50"), (0.01234, "0.0123"), (-3.14159, "-3.14")],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_the_newest_result_is_found_and_says_where_it_comes_from(tmp_path: Path) -> None:
    common.save("other-600M", {}, {"value": 0}, tmp_path)
    path = common.save("some-600M", {"model": Path("x"), "seed": 1}, {"value": spread([1.0])}, tmp_path)
    path.rename(tmp_path / "some-600M-20200101-000000.json")
    common.save("some-600M", {"seed": 2}, {"value": spread([2.0])}, tmp_path)
    record = common.newest("some-600M", tmp_path)
    assert record is not None
    assert record["options"] == {"seed": 2}
    assert record["results"]["value"]["median"] == 2.0
    assert record["hardware"]["memory_gib"] > 0
    assert common.newest("some", tmp_path) is None


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        common.save("some", {}, {"value": object()}, tmp_path)
