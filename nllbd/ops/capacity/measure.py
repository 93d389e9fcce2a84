"""A short load on a daemon of our own on this host, with the real engine: how fast it is with 1, 2, 4 … requests at
once, and whether what the model promises comes true.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from nllbd.config import Settings
from nllbd.config.table import ROWS
from nllbd.errors import NllbdError
from nllbd.ops.asking import Server
from nllbd.ops.capacity.model import ServiceCurve
from nllbd.ops.trial import FOREIGN, TrialDaemon, give_to_service, own_settings

_LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Two levels in a row that are not this much faster than the best before them end the search.
_GAIN = 1.03
_PATIENCE = 2
_ASKERS = 96
_OTHER_NUMBERS = 1_000_000
#: Plain sentences of the length that interfaces and messages have; the number keeps every one of them new.
_SENTENCES = (
    "The meeting on floor {n} starts at nine o'clock tomorrow.",
    "Please send {n} copies of the report to the office.",
    "There are {n} people waiting in front of the station.",
    "The train to platform {n} will be late this evening.",
    "I would like a table for {n} people, please.",
    "Your order number {n} has been sent today.",
    "We found {n} errors in the file that you opened.",
    "The hotel has {n} rooms with a view of the sea.",
)


@dataclass(frozen=True, slots=True)
class Mix:
    """What a request is: so many sentences, from one language to another, so many beams (None: the daemon's)."""

    sentences: int = 3
    source: str = "eng_Latn"
    target: str = "fra_Latn"
    num_beams: int | None = None

    def body(self, number: int) -> bytes:
        first = number * self.sentences
        chosen = [_SENTENCES[n % len(_SENTENCES)].format(n=n + 2) for n in range(first, first + self.sentences)]
        body: dict[str, Any] = {"text": " ".join(chosen), "source_lang": self.source, "target_lang": self.target}
        return json.dumps(body | ({"num_beams": self.num_beams} if self.num_beams else {})).encode()


@dataclass(slots=True)
class _Outcome:
    times: list[float] = field(default_factory=list)
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of an open arrival stream: its rate, and the times of its requests."""

    arrivals: float
    times: tuple[float, ...]
    failures: int

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.times) if self.times else float("inf")

    @property
    def p95_s(self) -> float:
        return sorted(self.times)[int(0.95 * len(self.times))] if self.times else float("inf")


@contextmanager
def own_daemon(settings: Settings) -> Iterator[Server]:
    """A daemon with this host's model and engine settings, without cache, limits and keys."""
    kept: tuple[str, ...] = (
        "model",
        "model_dir",
        "device",
        "dtype",
        "num_threads",
        "max_num_lanes",
        "max_encode_tokens",
    )
    kept += ("kv_cache_bytes", "num_beams", "length_penalty", "early_stopping", "max_length", "runner")
    values = {row.name: getattr(settings, row.name) for row in ROWS if row.name in kept and row.name not in FOREIGN}
    table = {name: str(it) if isinstance(it, Path) else it for name, it in values.items() if it is not None}
    with TemporaryDirectory(prefix="nllbd-capacity-") as folder:
        state = Path(folder)
        config = state / "capacity.toml"
        config.write_text(own_settings(table, cache_ttl_s=0, allow_anonymous=True), encoding="utf-8")
        give_to_service([state, config])
        with TrialDaemon(config, state) as daemon:
            yield daemon.server


def measure(server: Server, mix: Mix, seconds: float, say: Callable[[str], None]) -> ServiceCurve:
    """Closed loops of ever more callers, `seconds` each, until more callers bring nothing. Raises NllbdError."""
    numbers = count()
    _closed_loop(server, mix, 2, min(seconds, 1.0), numbers)  # whatever is only done once
    points: dict[int, float] = {}
    sizes: list[float] = []
    best, num_slower = 0.0, 0
    for level in _LEVELS:
        began = time.monotonic()
        outcome = _closed_loop(server, mix, level, seconds, numbers)
        took = time.monotonic() - began
        if not outcome.times:
            raise NllbdError("no translation came back within the time; give --seconds more")
        if level == 1:
            mean = statistics.fmean(outcome.times)
            sizes = [it / mean for it in outcome.times]
        points[level] = len(outcome.times) / took
        p95 = sorted(outcome.times)[int(0.95 * len(outcome.times))]
        say(
            f"{level:5}  {points[level]:10.2f}  {points[level] * mix.sentences:11.2f}  {p95:8.3f}  {outcome.failures:8}"
        )
        num_slower = 0 if points[level] >= _GAIN * best else num_slower + 1
        best = max(best, points[level])
        if outcome.failures or num_slower == _PATIENCE:
            break
    return ServiceCurve(points, tuple(sizes))


def arrive(server: Server, mix: Mix, arrivals: float, seconds: float, seed: int = 0) -> Trial:
    """Poisson arrivals for a time; each is timed from when it came, whether or not somebody was free to ask for it."""
    random_times = random.Random(seed)
    outcome, lock = _Outcome(), threading.Lock()
    waiting: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
    askers = [threading.Thread(target=_ask, args=(server, waiting, outcome, lock)) for _ in range(_ASKERS)]
    for asker in askers:
        asker.start()
    begin, at, number = time.monotonic(), 0.0, _OTHER_NUMBERS * (seed + 1)
    while (at := at + random_times.expovariate(arrivals)) < seconds:
        time.sleep(max(0.0, begin + at - time.monotonic()))
        waiting.put((begin + at, mix.body(number)))
        number += 1
    for _ in askers:
        waiting.put(None)
    for asker in askers:
        asker.join()
    return Trial(arrivals, tuple(outcome.times), outcome.failures)


def _ask(
    server: Server,
    waiting: queue.SimpleQueue[tuple[float, bytes] | None],
    outcome: _Outcome,
    lock: threading.Lock,
) -> None:
    with closing(_connection(server)) as connection:
        while (item := waiting.get()) is not None:
            came, body = item
            took = _timed(connection, body)
            with lock:
                if took is None:
                    outcome.failures += 1
                else:
                    outcome.times.append(time.monotonic() - came)


def _closed_loop(server: Server, mix: Mix, callers: int, seconds: float, numbers: Iterator[int]) -> _Outcome:
    """`callers` who each ask again at once, for a time; what is under way then is awaited and counted."""
    outcome, lock = _Outcome(), threading.Lock()
    end = time.monotonic() + seconds

    def call() -> None:
        with closing(_connection(server)) as connection:
            while time.monotonic() < end:
                with lock:
                    body = mix.body(next(numbers))
                took = _timed(connection, body)
                with lock:
                    if took is None:
                        outcome.failures += 1
                        return
                    outcome.times.append(took)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def _connection(server: Server) -> http.client.HTTPConnection:
    parts = urlsplit(server.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120.0)


def _timed(connection: http.client.HTTPConnection, body: bytes) -> float | None:
    """How long one translation took; None if there was none."""
    began = time.monotonic()
    try:
        connection.request("POST", "/translate", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return None
    return time.monotonic() - began if answer.status == 200 else None
