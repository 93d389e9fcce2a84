"""The generic cell rate algorithm (ITU-T I.371): a leaky bucket whose whole state is one point in time. No I/O.

The *theoretical arrival time* (TAT) of a bucket is when it will be full again. A unit moves it one emission interval
ahead; a unit that would move it further than `burst` intervals beyond now is refused and moves nothing. All times are
whole microseconds, here and in the Lua script of `redis_buckets`, so that both decide alike to the last unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from nllbd.security.bounded import BoundedMap

MICROSECOND = 1e-6
_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """`per_minute` units a minute on average, at most `burst` of them at once; both at least 1."""

    per_minute: int
    burst: int

    @property
    def interval_us(self) -> int:
        return max(1, _MINUTE_US // self.per_minute)

    @property
    def window_s(self) -> int:
        """Seconds in which an empty bucket fills up: `burst` units in this time is the rate, said in whole seconds."""
        return max(1, math.ceil(self.burst * 60 / self.per_minute))

    def share(self, num_hosts: int) -> RatePolicy:
        """What one of several hosts may let through by itself."""
        if num_hosts <= 1:
            return self
        return RatePolicy(max(1, self.per_minute // num_hosts), max(1, self.burst // num_hosts))


class Decision(NamedTuple):
    """Whether a unit may pass.

    Attributes:
        allowed: it may, and is charged.
        policy: the policy that decided.
        remaining: units that could pass right after this one.
        full_after_us: when the bucket is full again.
        retry_after_us: when the refused unit could pass; 0 if it passed.
    """

    allowed: bool
    policy: RatePolicy
    remaining: int
    full_after_us: int
    retry_after_us: int


def decide(tat_us: int, now_us: int, policy: RatePolicy) -> Decision:
    """One unit at `now_us`. The bucket's new TAT is `now_us + full_after_us`; a refusal leaves it as it was.

    A TAT further ahead than the policy allows comes from another policy and counts as an empty bucket.
    """
    interval, burst = policy.interval_us, policy.burst
    ahead = min(max(tat_us - now_us, 0), burst * interval)
    wait = ahead + interval - burst * interval
    if wait > 0:
        return Decision(False, policy, 0, ahead, wait)
    ahead += interval
    return Decision(True, policy, burst - -(-ahead // interval), ahead, 0)


class Buckets:
    """Buckets by name in this process. A forgotten bucket is a full one, so the bound errs towards letting through."""

    def __init__(self, capacity: int = 65_536) -> None:
        self._tats: BoundedMap[str, int] = BoundedMap(capacity)

    def charge(self, name: str, policy: RatePolicy, now_us: int) -> Decision:
        """Take one unit out of a bucket, if there is one."""
        decision = decide(self._tats.get(name) or 0, now_us, policy)
        if decision.allowed:
            self._tats.put(name, now_us + decision.full_after_us)
        return decision

    def peek(self, name: str, policy: RatePolicy, now_us: int) -> Decision | None:
        """What `charge` would say, without charging; None for a bucket that is as good as full."""
        tat_us = self._tats.get(name)
        return None if tat_us is None or tat_us <= now_us else decide(tat_us, now_us, policy)

    def clear(self) -> None:
        """Fill every bucket."""
        self._tats.clear()
