"""What the loads of bench/online.py amount to: pooled percentiles, goodput and its ratios, table and plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import common, load, plot

UNLOADED = "unloaded"
LOADED_FRACTION = 0.8


@dataclass(frozen=True)
class Point:
    """One measurement: what load (requests/s over how many seconds), in which round, and every sample."""

    server: str
    load: str
    rate: float
    round: int
    seconds: float
    samples: tuple[load.Sample, ...]


def outcome(labels: Sequence[str], points: Sequence[Point], allowed: Mapping[int, float]) -> dict[str, Any]:
    """Figures of all points; goodput ratios are those of the first label over the others."""
    made: dict[str, dict[str, Any]] = {label: {} for label in labels}
    for label, name in dict.fromkeys((point.server, point.load) for point in points):
        made[label][name] = _pooled([it for it in points if (it.server, it.load) == (label, name)], allowed)
    return {
        "loads": made,
        "best_goodput": {label: _best(made[label]) for label in labels},
        "loaded_over_unloaded_p99": {label: _p99_ratio(made[label]) for label in labels},
        "goodput_ratios": {label: _goodput_ratios(made[labels[0]], made[label]) for label in labels[1:]},
        "points": [asdict(point) | {"samples": [_short(it) for it in point.samples]} for point in points],
    }


def _pooled(points: Sequence[Point], allowed: Mapping[int, float]) -> dict[str, Any]:
    """All rounds of one load: percentiles of all samples together, goodput of each round."""
    together = [sample for point in points for sample in point.samples]
    pooled = load.summarize(together, allowed, sum(point.seconds for point in points))
    by_round = [load.summarize(point.samples, allowed, point.seconds) for point in points]
    for kind, summary in pooled.items():
        summary["goodput_by_round"] = [it[kind]["goodput_per_s"] if kind in it else 0.0 for it in by_round]
        summary["goodput_spread"] = common.spread(summary["goodput_by_round"])
    return {"rate": statistics.mean(point.rate for point in points), "kinds": pooled}


def _best(loads: Mapping[str, Any]) -> dict[str, Any]:
    """The Poisson load at which a server's median goodput is highest."""
    name = max(
        (name for name in loads if name.startswith("poisson")),
        key=lambda name: loads[name]["kinds"]["all"]["goodput_spread"].median,
    )
    kinds = loads[name]["kinds"]
    return {"load": name, "rate": loads[name]["rate"], **{kind: it["goodput_spread"] for kind, it in kinds.items()}}


def _goodput_ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, common.Spread]:
    """Our best goodput over theirs, round by round; the kinds apart at the loads that are best for all together."""
    mine, other = (loads[_best(loads)["load"]]["kinds"] for loads in (ours, theirs))
    return {
        kind: common.ratio(mine[kind]["goodput_by_round"], other[kind]["goodput_by_round"])
        for kind in mine
        if kind in other and min(other[kind]["goodput_by_round"]) > 0
    }


def _p99_ratio(loads: Mapping[str, Any]) -> float | None:
    """p99 at LOADED_FRACTION of saturation over p99 with one client; None where either has no answer."""
    try:
        loaded, unloaded = (loads[name]["kinds"]["all"]["p99_s"] for name in (f"poisson {LOADED_FRACTION:g}", UNLOADED))
    except KeyError:
        return None
    return float(loaded / unloaded)


def _short(sample: load.Sample) -> list[Any]:
    """[text, due, latency, status]: there are thousands of them."""
    return [sample.text, round(sample.due_s, 3), round(sample.latency_s, 4), sample.status]


def show(results: Mapping[str, Any]) -> None:
    """The figures that count, on the terminal."""
    for label, best in results["best_goodput"].items():
        p99 = results["loaded_over_unloaded_p99"][label]
        print(
            f"{label:12} best goodput {best['all']} requests/s, at {best['load']} of saturation "
            f"({results['saturation_per_s'][label]:.2f}/s); p99 at {LOADED_FRACTION:.0%} of saturation "
            f"{'–' if p99 is None else f'{p99:.2f} ×'} unloaded; {results['rss_mib'][label]:.0f} MiB resident"
        )
    for label, ratios in results["goodput_ratios"].items():
        print(f"  goodput over {label}: {', '.join(f'{kind} {value}' for kind, value in ratios.items())}")


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Goodput, p50 and p99 against the offered rate."""

    def curve(label: str, value: str) -> list[tuple[float, float]]:
        loads = [it for name, it in results["loads"][label].items() if name.startswith("poisson")]
        points = [(it["rate"], it["kinds"]["all"].get(value)) for it in loads]
        return sorted((rate, figure) for rate, figure in points if figure is not None)

    def panel(title: str, y: str, value: str, log: bool) -> dict[str, Any]:
        curves = {label: curve(label, value) for label in results["loads"]}
        return {"title": title, "x": "requests/s offered", "y": y, "log": log, "curves": curves}

    panels = [
        panel("goodput under the SLO", "requests/s in time", "goodput_per_s", log=False),
        panel("p50 latency", "seconds", "p50_s", log=True),
        panel("p99 latency", "seconds", "p99_s", log=True),
    ]
    plot.lines(path, "Poisson arrivals of sentences, paragraphs and documents", panels)
