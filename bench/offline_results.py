"""What the rounds of bench/offline.py amount to: rates, medians, ratios, table and plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import common, plot
from bench.child import Loaded, Reply
from bench.common import Spread
from bench.contestants import Job

MIB = 2**20


def speed(jobs: Sequence[Job], reply: Reply) -> dict[str, Any]:
    """Rates of one timed call."""
    source, target = sum(len(ids) for ids, _ in jobs), sum(map(len, reply.outputs))
    return {
        "seconds": reply.seconds,
        "source_tokens_per_s": source / reply.seconds,
        "target_tokens_per_s": target / reply.seconds,
        "sentences_per_s": len(jobs) / reply.seconds,
    }


def summary(rounds: Sequence[Mapping[str, Any]], loaded: Loaded) -> dict[str, Any]:
    """All rounds of an entrant: medians with their spread."""
    peak = max(record["peak_rss"] for record in rounds)
    same = [record["same_as_alone"] for record in rounds if record["same_as_alone"] is not None]
    return {
        "target_tokens_per_s": common.spread(record["target_tokens_per_s"] for record in rounds),
        "source_tokens_per_s": common.spread(record["source_tokens_per_s"] for record in rounds),
        "sentences_per_s": common.spread(record["sentences_per_s"] for record in rounds),
        "alone_p50_s": common.spread(statistics.median(record["alone_s"]) for record in rounds),
        "alone_tokens_per_s": common.spread(record["alone_tokens_per_s"] for record in rounds),
        "same_as_alone": statistics.mean(same) if same else None,
        "peak_rss_mib": peak / MIB,
        "peak_rss_less_imports_mib": (peak - loaded.imported_rss) / MIB,
    }


def ratios(ours: str, made: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """The first entrant over each other one, round by round. Latency and memory: below 1 is better."""
    mine = made[ours]
    ratios = {}
    for label, other in made.items():
        if label == ours:
            continue

        def over(measure: str, theirs: str | None = None, other: Mapping[str, Any] = other) -> Spread:
            columns = [record[measure] for record in mine["rounds"]], [it[theirs or measure] for it in other["rounds"]]
            return common.ratio(*columns)

        alone = [[statistics.median(record["alone_s"]) for record in it["rounds"]] for it in (mine, other)]
        memory = "peak_rss_less_imports_mib"
        ratios[label] = {
            "target_tokens_per_s": over("target_tokens_per_s"),
            "target_tokens_per_s_over_one_by_one": over("target_tokens_per_s", "alone_tokens_per_s"),
            "alone_p50_s": common.ratio(*alone),
            "peak_rss": common.ratio([mine["peak_rss_mib"]], [other["peak_rss_mib"]]),
            "peak_rss_less_imports": common.ratio([mine[memory]], [other[memory]]),
        }
    return ratios


def round_line(beams: int, number: int, label: str, record: Mapping[str, Any]) -> str:
    """What the terminal says after a round."""
    speed, alone = record["target_tokens_per_s"], statistics.median(record["alone_s"])
    return (
        f"beam {beams} round {number + 1} {label:24} {common.figure(speed):>6} target tokens/s, "
        f"alone p50 {alone:.3f} s, load {record['load_average']}"
    )


def print_table(made: Mapping[str, Mapping[str, Any]], ratios: Mapping[str, Mapping[str, Spread]], title: str) -> None:
    """The figures that count, on the terminal."""
    print(f"\n{title}; median (least–most)")
    for label, it in made.items():
        quality = "" if it["chrf"] is None else f", BLEU {it['bleu']:.2f}, chrF {it['chrf']:.2f}"
        print(
            f"{label:24} target tokens/s {it['target_tokens_per_s']}, source {it['source_tokens_per_s']}, "
            f"sentences/s {it['sentences_per_s']}, alone p50 {it['alone_p50_s']} s,\n{'':24} peak RSS "
            f"{it['peak_rss_mib']:.0f} MiB, {it['peak_rss_less_imports_mib']:.0f} beyond imports, "
            f"equal to float32 {it['equal']:.1%}, to itself alone {_percent(it['same_as_alone'])}{quality}"
        )
    for label, values in ratios.items():
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        print(f"  over {label}: {told}")
    print()


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Bars of throughput, a panel for each number of beams."""
    groups = {
        f"beam {beams}": {label: it["target_tokens_per_s"] for label, it in made["entrants"].items()}
        for beams, made in results["beams"].items()
    }
    threads, count = results["threads"], results["corpus"]["sentences"]
    title = f"{count} held-out sentences, {threads} threads: median, least and most of the rounds"
    plot.bars(path, title, "target tokens/s", groups)
