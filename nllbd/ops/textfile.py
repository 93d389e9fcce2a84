"""Metrics as text files for node_exporter's textfile collector, written so that a scrape sees the old or the new."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SAMPLE = re.compile(r"^([a-z_]+)(\{.*\})? ([-+0-9.eE]+)$")


@dataclass(frozen=True, slots=True)
class Sample:
    """One gauge. Label values are our own words."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def series(self) -> str:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


def write_samples(file: Path, samples: Iterable[Sample], helps: Mapping[str, str], *, keep: str = "") -> None:
    """Put `samples` into `file`. `helps`: name → help of every metric. `keep`: a pattern; other series that the file
    had stay in it if the pattern is found in them. Raises OSError.
    """
    series = {name: value for name, value in read_samples(file).items() if keep and re.search(keep, name)}
    series |= {sample.series: sample.value for sample in samples}
    lines: list[str] = []
    for name in sorted(helps):
        own = sorted(it for it in series if it.partition("{")[0] == name)
        if own:
            lines += [f"# HELP {name} {helps[name]}", f"# TYPE {name} gauge"]
            lines += [f"{it} {_number(series[it])}" for it in own]
    draft = file.with_name(f".{file.name}.{os.getpid()}")  # not *.prom: the collector passes it by
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(file)


def read_samples(file: Path) -> dict[str, float]:
    """Series → value; empty when there is no file."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = (_SAMPLE.match(line) for line in lines)
    return {(match[1] + (match[2] or "")): float(match[3]) for match in found if match}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
