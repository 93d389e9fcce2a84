"""What clients write down of each request: that it began, and how it ended for them. JSON lines; no locust, no asyncio.

`manner` says what may be expected: a `polite` request must get a right answer or a proper refusal, so must `overload`
ones, which are meant to be refused; `poison` makes the engine fail and may get an error; a `rude` client leaves or
sends garbage, and is owed no more than one line in the access log.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MANNERS = ("polite", "overload", "poison", "rude")


@dataclass(frozen=True)
class Outcome:
    """One request as its client saw it. `status` 0: no answer. `is_right`: the answer was that to this question.

    `latency_s` counts from the sending; `timeout_s` is the deadline that the request named, None if it named none.
    """

    id: str
    manner: str
    kind: str
    status: int = 0
    latency_s: float = 0.0
    timeout_s: float | None = None
    is_right: bool = True
    has_retry_after: bool = False
    ended: bool = False


class Recorder:
    """Appends to a file, line by line: what is written is there, however its process ends."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._prefix = f"{prefix}-{os.getpid()}"
        self._numbers = itertools.count(1)

    def begin(self, manner: str, kind: str, timeout_s: float | None = None) -> Sending:
        """Call before the first byte is sent."""
        request_id = f"{self._prefix}-{next(self._numbers)}"
        self.write(Outcome(request_id, manner, kind, timeout_s=timeout_s))
        return Sending(self, request_id, manner, kind, timeout_s, time.perf_counter())

    def write(self, outcome: Outcome) -> None:
        self._file.write(json.dumps(asdict(outcome)) + "\n")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Sending:
    """A request under way."""

    recorder: Recorder
    id: str
    manner: str
    kind: str
    timeout_s: float | None
    began: float

    def end(self, status: int, *, is_right: bool = True, has_retry_after: bool = False) -> None:
        """The answer is there, or there will be none (0)."""
        took_s = time.perf_counter() - self.began
        self.recorder.write(
            Outcome(self.id, self.manner, self.kind, status, took_s, self.timeout_s, is_right, has_retry_after, True)
        )


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """The last word on each request, by id."""
    return {outcome.id: outcome for outcome in _lines(path)}


def _lines(path: Path) -> Iterator[Outcome]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        yield Outcome(**json.loads(line))
