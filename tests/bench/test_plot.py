"""Plots are written as SVG, and only then."""

import sys
from pathlib import Path

import pytest

from bench import plot
from bench.common import Spread

GROUPS = {"beam 1": {"nllbd int8": Spread(2.0, 1.0, 3.0, 5), "other": Spread(1.0, 1.0, 1.0, 5)}}
PANEL = {"title": "p99", "x": "rate", "y": "s", "log": True, "curves": {"nllbd": [(1.0, 0.5), (2.0, 4.0)]}}


def test_bars_and_lines_become_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot.bars(tmp_path / "bars.svg", "title", "tokens/s", GROUPS)
    plot.lines(tmp_path / "lines.svg", "title", [PANEL, PANEL])
    for name in ("bars.svg", "lines.svg"):
        assert "<svg" in (tmp_path / name).read_text(encoding="utf-8")


def test_without_matplotlib_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    plot.bars(tmp_path / "bars.svg", "title", "tokens/s", GROUPS)
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
