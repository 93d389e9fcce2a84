"""What every benchmark shares: facts about machine and versions, statistics, result files.

Imports no torch and none of the peers: the measuring process stays small and the measured ones import their own.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "ctranslate2",
    "transformers",
    "aiohttp",
    "uvloop",
    "sentencepiece",
    "sacrebleu",
    "triton",
    "locust",
)


# Statistics


@dataclass(frozen=True)
class Spread:
    """Median of some samples and how far they reach."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.low)}–{figure(self.high)})"


def spread(samples: Iterable[float]) -> Spread:
    """Raises ValueError without samples."""
    known = sorted(samples)
    if not known:
        raise ValueError("no samples to summarize")
    return Spread(statistics.median(known), known[0], known[-1], len(known))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """ours / theirs round by round, then the median: what slows both in one round cancels."""
    return spread(mine / other for mine, other in zip(ours, theirs, strict=True))


def percentile(samples: Iterable[float], percent: float) -> float:
    """The smallest sample that is not below `percent` % of all (nearest rank). Raises ValueError without samples."""
    known = sorted(samples)
    if not known:
        raise ValueError("no samples to summarize")
    return known[max(0, math.ceil(percent / 100 * len(known)) - 1)]


def figure(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


# Facts


def hardware() -> dict[str, Any]:
    """The machine, as far as a reader needs it to judge a figure."""
    names = _cpuinfo("model name")
    flags = set(_cpuinfo("flags")[0].split()) if _cpuinfo("flags") else set()
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"}),
        "gpu": _gpus(),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what is installed of PACKAGES."""
    found = {"python": platform.python_version()}
    for package in ("nllbd", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any]:
    """The commit that is measured, and whether files differ from it."""
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD") or "unknown", "changed_files": bool(git("status", "--porcelain"))}
    except OSError:
        return {"commit": "unknown", "changed_files": False}


def load_average() -> float:
    """Of the last minute: who else was busy. On an idle machine a benchmark alone makes about its threads."""
    return round(os.getloadavg()[0], 2)


# Results


def save(name: str, options: Mapping[str, Any], results: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>-<time>.json` with all that is needed to judge and repeat the run. Of paths in the options
    only the names: where they lie is nobody's business.
    """
    now = datetime.now(UTC)
    record = {
        "name": name,
        "time": now.isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "revision": revision(),
        "options": {key: value.name if isinstance(value, Path) else value for key, value in options.items()},
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(f"written: {path}")
    return path


def without_folder(argument: str) -> str:
    """An argument of a command as it is recorded: of a path the name."""
    return Path(argument).name if argument.startswith("/") else argument


def newest(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The latest record of a benchmark, or None."""
    files = sorted(folder.glob(f"{name}-{'[0-9]' * 8}-{'[0-9]' * 6}.json"))
    return json.loads(files[-1].read_text(encoding="utf-8")) if files else None


def headline(options: Mapping[str, Any]) -> str:
    """One line for the terminal: machine, versions, commit, what was asked for."""
    machine = hardware()
    known = " ".join(f"{name} {number}" for name, number in versions().items())
    wanted = " ".join(f"{key}={value}" for key, value in options.items())
    device = ", ".join(machine["gpu"]) or f"{machine['cores']} × {machine['cpu']}"
    return f"{device}; {known}; commit {revision()['commit'][:9]}; load {load_average()}\n{wanted}"


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} does not belong into a result file")


def _cpuinfo(field: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]


def _gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
