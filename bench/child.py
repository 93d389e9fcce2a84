"""A contestant in a process of its own, from the measuring side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.contestants import Job, Output

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Spec:
    """How a contestant is loaded. `settings` go to its constructor, `environ` to its process."""

    label: str
    kind: str
    model: Path
    precision: str
    threads: int
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self) | {"model": self.model.name}


@dataclass(frozen=True)
class Loaded:
    """What loading took. Memory in bytes: after the bare imports, when ready, at the highest until then."""

    imported_rss: int
    load_s: float
    loaded_rss: int
    load_peak_rss: int


@dataclass(frozen=True)
class Reply:
    """One timed call. `peak_rss`: the process's highest so far, loading included."""

    seconds: float
    outputs: list[Output]
    rss: int
    peak_rss: int


class ContestantFailed(Exception):
    """A contestant's process ended, or never came up."""


class Child:
    """Starts the process and waits until the model is loaded. A context manager."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        order = asdict(spec) | {"model": str(spec.model)}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.contestants", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **spec.environ},
        )
        self.loaded = Loaded(**self._answer())

    def translate(self, jobs: Sequence[Job], beams: int, max_length: int, how: Mapping[str, Any]) -> Reply:
        """Translate all jobs in the way `how` names (see the contestants). Raises ContestantFailed."""
        assert self._process.stdin is not None
        try:
            json.dump({"jobs": jobs, "beams": beams, "max_length": max_length, "how": how}, self._process.stdin)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return Reply(**self._answer())

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> ContestantFailed:
        code = self._process.wait()
        return ContestantFailed(f"{self.spec.label}: its process ended with exit code {code}; see its messages above")
