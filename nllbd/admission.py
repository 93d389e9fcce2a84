"""Whether a job may enter now: whole, or refused whole. Knows the work that was let in, and how fast it is done.

Work is counted in lane tokens: source tokens times beams, which is what a segment costs the engine within a small
factor, whatever its language. Refusing early is kinder than a deadline missed: the client learns when to come back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nllbd.errors import Overloaded, TextTooLong
from nllbd.sched.sequence import Priority

_SAMPLE_S = 1.0  # how long the engine must have been busy without a break for its speed to count
_SMOOTHING = 0.3  # weight of the newest sample
_MAX_RETRY_AFTER_S = 600.0
#: How much of a deadline may be planned for waiting and work: a rate is an average, and who is let in to the last
#: second of a deadline misses it as often as not.
_TRUST = 0.85


@dataclass(slots=True, eq=False)
class Ticket:
    """A job that was let in, and what is left of it. Give it back with `Admission.leave`."""

    priority: Priority
    num_segments: int
    num_tokens: int
    num_lanes: int

    @property
    def work(self) -> int:
        """Lane tokens still to be done."""
        return self.num_tokens * self.num_lanes


class RateMeter:
    """Lane tokens a second while the engine had more than it could hold.

    Only such times count: an engine that decodes one sentence is far slower, in tokens, than a full one, and judging
    the queue by it would turn clients away from an idle machine. None until it was saturated once. For that long there
    is what single segments suggest, `supposed`: what a batch full of the likes of them would do. That is too much
    rather than too little, and keeps a first rush from being let in whole.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._done = 0
        self.rate: float | None = None
        self.supposed: float | None = None

    @property
    def best(self) -> float | None:
        """The rate to reckon with."""
        return self.supposed if self.rate is None else self.rate

    def suppose(self, rate: float) -> None:
        """A segment went through the engine at such a speed that a full batch would do `rate`."""
        if self.rate is None:
            old = rate if self.supposed is None else self.supposed
            self.supposed = old + _SMOOTHING * (rate - old)

    def record(self, work: int, saturated: bool) -> None:
        """`work` lane tokens were finished just now."""
        now = self._clock()
        if not saturated:
            self._since = None
            return
        if self._since is None:
            self._since, self._done = now, 0
            return
        self._done += work
        elapsed = now - self._since
        if elapsed >= _SAMPLE_S:
            sample = self._done / elapsed
            self.rate = sample if self.rate is None else self.rate + _SMOOTHING * (sample - self.rate)
            self._since, self._done = now, 0


class Admission:
    """The doorman. One event loop.

    `max_segments` and `max_tokens` cap memory; what exceeds them alone can never fit and is 413, the rest is 503.
    """

    def __init__(self, max_segments: int, max_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_segments = max_segments
        self.max_tokens = max_tokens
        self.meter = RateMeter(clock)
        self._tickets: set[Ticket] = set()
        self._work = 0
        self.num_segments = 0
        self.num_tokens = 0

    def enter(self, ticket: Ticket, timeout_s: float) -> None:
        """Let a job in.

        Raises TextTooLong if it could never enter, Overloaded (with `retry_after_s`) if it cannot now.
        """
        self._check_ever(ticket)
        self._check_memory(ticket)
        self._check_time(ticket, timeout_s)
        self._tickets.add(ticket)
        self._work += ticket.work
        self.num_segments += ticket.num_segments
        self.num_tokens += ticket.num_tokens

    def finish_segment(self, ticket: Ticket, tokens: int, saturated: bool) -> None:
        """One segment of an admitted job has its outcome."""
        self.meter.record(tokens * ticket.num_lanes, saturated)
        self._take(ticket, 1, tokens)

    def leave(self, ticket: Ticket) -> None:
        """The job has ended, finished or not."""
        self._tickets.discard(ticket)
        self._take(ticket, ticket.num_segments, ticket.num_tokens)

    def work_ahead(self, ticket: Ticket) -> int:
        """Lane tokens that will be done before this job ends, its own not counted.

        The scheduler puts small requests first: of another one of its class (or above) there will be done as much as
        this job's own work, if that is in the batch already, but no more than it has left. So a line waits for a line's
        worth of a book, and a book for all.
        """
        return sum(min(other.work, ticket.work) for other in self._tickets if other.priority <= ticket.priority)

    def _take(self, ticket: Ticket, segments: int, tokens: int) -> None:
        ticket.num_segments -= segments
        ticket.num_tokens -= tokens
        self._work -= tokens * ticket.num_lanes
        self.num_segments -= segments
        self.num_tokens -= tokens

    def _check_ever(self, ticket: Ticket) -> None:
        if ticket.num_segments > self.max_segments or ticket.num_tokens > self.max_tokens:
            raise TextTooLong(
                f"the request has {ticket.num_segments} segments and {ticket.num_tokens} tokens; this server holds at "
                f"most {self.max_segments} and {self.max_tokens}: send it in parts"
            )

    def _check_memory(self, ticket: Ticket) -> None:
        segments, tokens = self.num_segments + ticket.num_segments, self.num_tokens + ticket.num_tokens
        if segments > self.max_segments or tokens > self.max_tokens:
            excess = max(segments - self.max_segments, 0) * (self.num_tokens / max(self.num_segments, 1))
            excess = max(excess, tokens - self.max_tokens) * ticket.num_lanes
            raise Overloaded(
                "too much text is waiting already; try again later", retry_after_s=self._retry_after(excess)
            )

    def _check_time(self, ticket: Ticket, timeout_s: float) -> None:
        rate = self.meter.best
        if not rate or not self._tickets:
            return
        affordable = rate * timeout_s * _TRUST
        if self._work + ticket.work <= affordable:
            return  # even last in the queue
        ahead = self.work_ahead(ticket)
        if not ahead or ticket.work > rate * timeout_s or ahead + ticket.work <= affordable:
            return  # what is too slow all by itself is the deadline's business: waiting would not help it
        needed_s = (ahead + ticket.work) / rate
        raise Overloaded(
            f"the queue would take {needed_s:.0f} s and the request may wait {timeout_s:g} s; try again later",
            retry_after_s=self._retry_after(ahead + ticket.work - affordable),
        )

    def _retry_after(self, excess_work: float) -> float:
        rate = self.meter.best
        seconds = excess_work / rate if rate else 1.0
        return float(min(max(math.ceil(seconds), 1), _MAX_RETRY_AFTER_S))
