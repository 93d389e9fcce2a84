"""Rate limits: which policy a sender has, and where its bucket is (Redis when several hosts share it, else here).

Whatever can be decided in memory is decided without waiting: with no Redis, with Redis away (this host's share), and
for a sender that is known to be out of units until a point in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nllbd.config import Settings
from nllbd.errors import RateLimited
from nllbd.principal import Principal
from nllbd.redis_client import RedisProblem
from nllbd.security.bounded import BoundedMap
from nllbd.security.gcra import MICROSECOND, Buckets, Decision, RatePolicy
from nllbd.security.redis_buckets import RedisBuckets

_REMEMBERED_REFUSALS = 16_384


class RateLimiter:
    """One unit a request, per sender. `clock` counts seconds, monotonic."""

    def __init__(
        self, settings: Settings, shared: RedisBuckets | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._here = Buckets()
        self._refused_until: BoundedMap[str, tuple[int, RatePolicy]] = BoundedMap(_REMEMBERED_REFUSALS)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Take over limits that changed live."""
        self._per_minute = settings.rate_limit_per_minute
        self._burst = settings.rate_limit_burst
        self._num_hosts = settings.rate_limit_hosts
        self._policies: dict[tuple[int, int], RatePolicy] = {}
        self._refused_until.clear()

    def policy_of(self, principal: Principal) -> RatePolicy | None:
        """The sender's own limits, else the server's; None = unlimited."""
        per_minute = self._per_minute if principal.rate_per_minute is None else principal.rate_per_minute
        if per_minute <= 0:
            return None
        burst = self._burst if principal.rate_burst is None else principal.rate_burst
        policy = self._policies.get((per_minute, burst))
        if policy is None:
            policy = self._policies[per_minute, burst] = RatePolicy(per_minute, max(1, burst))
        return policy

    def charge_here(self, principal: Principal, policy: RatePolicy) -> Decision | None:
        """The decision, where memory has it; None = ask `charge_shared`."""
        now_us = self._now_us()
        if self._shared is None or self._shared.link.is_open:
            return self._here.charge(principal.id, policy.share(self._num_hosts), now_us)
        refusal = self._refused_until.get(principal.id)
        if refusal is not None and refusal[0] > now_us and refusal[1] == policy:
            wait = refusal[0] - now_us
            return Decision(False, policy, 0, wait + (policy.burst - 1) * policy.interval_us, wait)
        return None

    async def charge_shared(self, principal: Principal, policy: RatePolicy) -> Decision:
        """The decision of all hosts together; this host's share if Redis goes away meanwhile."""
        assert self._shared is not None
        try:
            decision = await self._shared.charge(principal.id, policy)
        except RedisProblem:
            return self._here.charge(principal.id, policy.share(self._num_hosts), self._now_us())
        if not decision.allowed:
            self._refused_until.put(principal.id, (self._now_us() + decision.retry_after_us, policy))
        return decision

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)


def check(decision: Decision) -> None:
    """Raises RateLimited for a refusal, with the time after which one more request passes."""
    if not decision.allowed:
        policy = decision.policy
        raise RateLimited(
            f"more than {policy.per_minute} requests a minute (up to {policy.burst} at once); slow down",
            retry_after_s=decision.retry_after_us * MICROSECOND,
        )
