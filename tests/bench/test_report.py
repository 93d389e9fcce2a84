from __future__ import annotations

from pathlib import Path

import pytest

from bench import common, report

ROOT = Path(__file__).parents[2]


def test_the_readme_has_the_newest_results() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert report.inserted(readme, report.render("600M", common.RESULTS)) == readme, "run: make docs"


def test_plots_in_the_readme_are_the_newest() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("offline-600M", "online-600M"):
        newest = max(common.RESULTS.glob(f"{name}-*.svg"))
        assert f"(bench/results/{newest.name})" in readme


def test_a_readme_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        report.inserted("# nllbd\n", "")


def test_results_tell_no_folders() -> None:
    for path in common.RESULTS.glob("*.json"):
        assert '"/' not in path.read_text("utf-8")
