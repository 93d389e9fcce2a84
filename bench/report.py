"""README's table of benchmark results, from the newest result files.

    python -m bench.report [--results bench/results] [--shape 600M] [--readme README.md]

Prints Markdown: one row for each measure of which there is a result, with its goal and its floor, and beneath it what
machine, versions and commit the figures belong to. A measure without a result is said to be unmeasured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import common

OURS = "nllbd int8"
PEER = "ctranslate2 int8"
PLAIN = "transformers float32"
NOTE = (
    "Every figure is a ratio within one run: the median of its rounds, least to greatest in brackets. The checkpoint "
    "has the exact shape of NLLB-200 and computes what the small bundled model computes (`bench/widen.py`), so costs "
    "are real, tokens per sentence are the small tokenizer's, and int8 quality says nothing about Meta's weights."
)


@dataclass(frozen=True)
class Measure:
    """A row: where its figure is (None: not in this result), and what it should be."""

    title: str
    source: str
    find: Callable[[Mapping[str, Any]], Any]
    goal: str
    floor: str


def _offline(beams: int, *path: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda results: _at(results, "beams", str(beams), *path)


def _quality_gap(beams: int, score: str) -> Callable[[Mapping[str, Any]], Any]:
    """int8 less float32, on the same sentences."""

    def find(results: Mapping[str, Any]) -> Any:
        return _at(results, "beams", str(beams), "int8_less_float32", score)

    return find


def _load_s(results: Mapping[str, Any]) -> Any:
    loads = _at(results, "loads", OURS)
    return None if loads is None else common.spread(load["load_s"] for load in loads)


BEGIN, END = "<!-- speed: written by bench.report -->", "<!-- end of speed -->"
MEASURES = (
    Measure(
        "offline throughput, greedy, over CTranslate2 int8",
        "offline",
        _offline(1, "ratios", PEER, "target_tokens_per_s"),
        "≥ 2.5",
        "1.5",
    ),
    Measure(
        "offline throughput, 4 beams, over CTranslate2 int8",
        "offline",
        _offline(4, "ratios", PEER, "target_tokens_per_s"),
        "≥ 2.5",
        "1.5",
    ),
    Measure(
        "one sentence alone, greedy, latency over CTranslate2 int8",
        "offline",
        _offline(1, "ratios", PEER, "alone_p50_s"),
        "≤ 0.7",
        "1.0",
    ),
    Measure(
        "one sentence alone, 4 beams, latency over CTranslate2 int8",
        "offline",
        _offline(4, "ratios", PEER, "alone_p50_s"),
        "≤ 0.7",
        "1.0",
    ),
    Measure(
        "throughput, 4 beams, over transformers one by one",
        "offline",
        _offline(4, "ratios", PLAIN, "target_tokens_per_s_over_one_by_one"),
        "≥ 10",
        "6",
    ),
    Measure(
        "throughput, 4 beams, over transformers in its best static batches",
        "offline",
        _offline(4, "ratios", PLAIN, "target_tokens_per_s"),
        "",
        "",
    ),
    Measure(
        "peak memory less bare imports, over CTranslate2 int8",
        "offline",
        _offline(4, "ratios", PEER, "peak_rss_less_imports"),
        "≤ 1.1",
        "1.3",
    ),
    Measure("BLEU, int8 less float32", "offline", _quality_gap(4, "bleu"), "± 0.2", "± 0.5"),
    Measure("chrF, int8 less float32", "offline", _quality_gap(4, "chrf"), "± 0.2", "± 0.5"),
    Measure(
        "int8 outputs equal to the sentence alone",
        "offline",
        _offline(4, "entrants", OURS, "same_as_alone"),
        "≥ 99.5 %",
        "99 %",
    ),
    Measure("int8 outputs equal to float32", "offline", _offline(4, "entrants", OURS, "equal"), "", ""),
    Measure("load, pre-quantized, seconds", "offline", _load_s, "≤ 3", "6"),
    Measure(
        "online goodput under the SLO over CTranslate2 with dynamic batching",
        "online",
        lambda results: _at(results, "goodput_ratios", "ctranslate2", "all"),
        "≥ 3",
        "2",
    ),
    Measure(
        "p99 at 80 % of saturation over unloaded p99",
        "online",
        lambda results: _at(results, "loaded_over_unloaded_p99", "nllbd"),
        "≤ 2",
        "3",
    ),
    Measure(
        "HTTP path, requests/s over a bare aiohttp echo",
        "micro_http",
        lambda results: _at(results, "share"),
        "≥ 0.5",
        "0.35",
    ),
)


def render(shape: str, folder: Path) -> str:
    """The table in Markdown."""
    names = {"offline": f"offline-{shape}", "online": f"online-{shape}", "micro_http": "micro_http"}
    records = {source: common.newest(name, folder) for source, name in names.items()}
    lines = [f"| measure ({shape} shape) | measured | goal | floor |", "|---|---|---|---|"]
    for measure in MEASURES:
        record = records[measure.source]
        found = None if record is None else measure.find(record["results"])
        lines.append(f"| {measure.title} | {_shown(found, measure.goal)} | {measure.goal} | {measure.floor} |")
    lines += ["", NOTE, ""]
    lines += [_origin(source, record) for source, record in records.items() if record is not None]
    return "\n".join(lines) + "\n"


def inserted(readme: str, table: str) -> str:
    """The README with the table in its place. Raises ValueError if it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def _origin(source: str, record: Mapping[str, Any]) -> str:
    machine, known = record["hardware"], record["versions"]
    versions = ", ".join(f"{name} {known[name]}" for name in ("torch", "ctranslate2", "transformers") if name in known)
    changed = " with changes" if record["revision"]["changed_files"] else ""
    return (
        f"- {source}: {machine['cores']} × {machine['cpu']}, {versions}, Python {known['python']}, "
        f"commit {record['revision']['commit'][:9]}{changed}, {record['time']}"
    )


def _shown(found: Any, goal: str) -> str:
    if found is None:
        return "unmeasured"
    if isinstance(found, Mapping):
        found = common.Spread(**found)
    if isinstance(found, common.Spread):
        return str(found)
    return f"{found:.2%}" if goal.endswith("%") or not goal else f"{found:.2f}"


def _at(results: Any, *path: str) -> Any:
    for key in path:
        if not isinstance(results, Mapping) or key not in results:
            return None
        results = results[key]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--shape", default="600M")
    parser.add_argument("--readme", type=Path, help="put the table into this file, too")
    options = parser.parse_args()
    table = render(options.shape, options.results)
    print(table, end="")
    if options.readme:
        options.readme.write_text(inserted(options.readme.read_text("utf-8"), table), "utf-8")


if __name__ == "__main__":
    main()
