"""Plots beside the result files (SVG). Without matplotlib a run says so and goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import Spread

#: One colour for each contestant in all plots.
COLOURS = {"nllbd": "#1b7837", "ctranslate2": "#5e3c99", "transformers": "#e08214"}
OTHER = "#666666"


def bars(path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, Spread]]) -> None:
    """One panel a group, one bar a contestant; the whiskers reach from the least to the greatest sample."""
    figure = _figure(len(groups))
    if figure is None:
        return
    for axes, (group, values) in zip(figure.axes, groups.items(), strict=True):
        names = list(values)
        medians = [values[name].median for name in names]
        below = [values[name].median - values[name].low for name in names]
        above = [values[name].high - values[name].median for name in names]
        axes.barh(names, medians, xerr=(below, above), color=[_colour(name) for name in names], capsize=3)
        axes.invert_yaxis()
        axes.set_title(group, fontsize=10)
        axes.set_xlabel(unit, fontsize=9)
    _finish(figure, path, title)


def lines(path: Path, title: str, panels: Sequence[Mapping[str, Any]]) -> None:
    """Panels of curves: each has title, x, y (labels), optionally log, and curves: name → [(x, y), …]."""
    figure = _figure(len(panels))
    if figure is None:
        return
    for axes, panel in zip(figure.axes, panels, strict=True):
        for name, points in panel["curves"].items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", ms=3, label=name, color=_colour(name))
        axes.set(title=panel["title"], xlabel=panel["x"], ylabel=panel["y"])
        if panel.get("log"):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _finish(figure, path, title)


def _figure(panels: int) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed")
        return None
    figure = Figure(figsize=(4.8 * panels, 3.6), layout="constrained")
    figure.subplots(1, panels, squeeze=False)
    return figure


def _finish(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, metadata={"Date": None})
    print(f"plotted: {path}")


def _colour(name: str) -> str:
    return next((colour for start, colour in COLOURS.items() if name.startswith(start)), OTHER)
