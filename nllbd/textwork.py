"""Processor work on texts (detection, splitting) in a thread beside the event loop: in fair turns, and bounded.

Who brings texts gets a visit. Visits share the thread evenly, text by text, so that a short one is done before long
ones that came first; and nobody is let in who would wait too long for the others, so that those who are, are served.
Knows nothing of what it runs.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from nllbd.errors import Overloaded

#: How long what only looks at texts may wait for others; what translates them may wait as its deadline allows.
PATIENCE_S = 1.5
_SLICE_S = 0.004  # what is handed to the thread at once, so that who comes meanwhile waits no longer
_FIRST_RATE = 500_000.0  # characters a second, until some were worked on
_MIN_RATE = 10_000.0
_EACH_S = 20e-6  # a text's cost beside its characters'
_MOST_SLOWER = 8.0
_REMEMBER_S = 1.0  # seconds of work after which an older rate counts a third
_MAX_RETRY_AFTER_S = 60.0

T = TypeVar("T")


class WorkRate:
    """Characters a second of one kind of work, as it was lately."""

    def __init__(self) -> None:
        self._rate = _FIRST_RATE

    def cost_s(self, characters: int, texts: int = 1) -> float:
        return texts * _EACH_S + characters / self._rate

    def record(self, characters: int, seconds: float) -> None:
        """A text took so long. One alone says little: it may have waited for a model or for the machine."""
        if characters <= 0 or seconds <= 0:
            return
        each_s = min(seconds / characters, _MOST_SLOWER / self._rate, 1 / _MIN_RATE)
        weight = 1 - math.exp(-characters * each_s / _REMEMBER_S)
        # The time that a character takes is what is averaged: slow texts are what one waits for.
        self._rate = 1 / ((1 - weight) / self._rate + weight * each_s)


@dataclass(slots=True, eq=False)
class Visit:
    """Somebody's texts, until they are done. `left_s` is what they will take."""

    rate: WorkRate
    left_s: float
    is_over: bool = False
    #: Where the last of its texts stands in the order of turns.
    last_turn: float = 0.0


@dataclass(slots=True, eq=False)
class _Piece(Generic[T]):
    visit: Visit
    characters: int
    cost_s: float
    call: Callable[[], T]
    future: asyncio.Future[T]
    took_s: float = 0.0
    settle: Callable[[], object] | None = None

    def run(self) -> None:
        """In the thread; `settle` is then to be called on the loop."""
        if self.visit.is_over:
            return
        began = time.perf_counter()
        try:
            self.settle = partial(self.future.set_result, self.call())
        except Exception as error:
            self.settle = partial(self.future.set_exception, error)
        self.took_s = time.perf_counter() - began


@dataclass(slots=True)
class TextWork:
    """The thread and the order in which it works. One event loop; `close` ends the thread.

    Turns are given by self-clocked fair queueing: each text ends, in a time that passes with the work done, its own
    cost after the visit's previous one; whose end is earliest comes next.
    """

    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="nllbd-text")
    )
    _visits: set[Visit] = field(default_factory=set)
    _waiting: list[tuple[float, int, _Piece[Any]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _rates: dict[str, WorkRate] = field(default_factory=dict)
    _now: float = 0.0
    _is_running: bool = False
    _is_closed: bool = False

    def close(self) -> None:
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._refuse_all()

    async def run(
        self, kind: str, sizes: Sequence[int], calls: Sequence[Callable[[], T]], patience_s: float = PATIENCE_S
    ) -> list[T]:
        """What the calls return, one a text of so many characters. `kind` tells work of another speed apart.

        Raises Overloaded, at once, if others would keep it waiting for more than `patience_s`; and what the first call
        to fail raises, and then the others are not made.
        """
        visit = self._enter(kind, sizes, patience_s)
        pieces = [self._add(visit, size, call) for size, call in zip(sizes, calls, strict=True)]
        try:
            self._go_on()
            return await asyncio.gather(*pieces)
        finally:
            visit.is_over = True
            self._visits.discard(visit)
            for piece in pieces:  # those that will not be made stay in line until their turn; their loop may not
                piece.cancel()

    def _enter(self, kind: str, sizes: Sequence[int], patience_s: float) -> Visit:
        rate = self._rates.setdefault(kind, WorkRate())
        visit = Visit(rate, rate.cost_s(sum(sizes), len(sizes)))
        # Fair turns: while this one gets its time, each other gets as much, but no more than it needs.
        ahead_s = sum(min(other.left_s, visit.left_s) for other in self._visits)
        if ahead_s > patience_s:
            retry_after_s = float(math.ceil(min(ahead_s, _MAX_RETRY_AFTER_S)))
            raise Overloaded("too many texts are being looked at; try again later", retry_after_s=retry_after_s)
        self._visits.add(visit)
        return visit

    def _add(self, visit: Visit, size: int, call: Callable[[], T]) -> asyncio.Future[T]:
        piece = _Piece(visit, size, visit.rate.cost_s(size), call, asyncio.get_running_loop().create_future())
        visit.last_turn = max(self._now, visit.last_turn) + piece.cost_s
        heapq.heappush(self._waiting, (visit.last_turn, next(self._numbers), piece))
        return piece.future

    def _go_on(self) -> None:
        """Hand the thread its next slice, unless it has one."""
        if self._is_closed:
            self._refuse_all()
        if self._is_running:
            return
        pieces: list[_Piece[Any]] = []
        planned_s = 0.0
        while self._waiting and planned_s < _SLICE_S:
            self._now, _, piece = heapq.heappop(self._waiting)
            if not piece.visit.is_over:
                pieces.append(piece)
                planned_s += piece.cost_s
        if pieces:
            self._is_running = True
            done = asyncio.get_running_loop().run_in_executor(self._threads, _run_all, pieces)
            done.add_done_callback(lambda _: self._settle(pieces))

    def _settle(self, pieces: list[_Piece[Any]]) -> None:
        self._is_running = False
        for piece in pieces:
            piece.visit.left_s -= piece.cost_s
            piece.visit.rate.record(piece.characters, piece.took_s)
            if piece.settle is None:
                piece.future.cancel()
            elif not piece.future.done():
                piece.settle()
        self._go_on()

    def _refuse_all(self) -> None:
        for _, _, piece in self._waiting:
            piece.future.cancel()
        self._waiting.clear()


def _run_all(pieces: list[_Piece[Any]]) -> None:
    for piece in pieces:
        piece.run()
