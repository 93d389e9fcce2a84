"""Failed authentications: how many an address may make, and who is told of them.

An address that failed too often is refused before its credentials are looked at, so guessing is slow. Credentials
that were right from this address before still pass: behind one address (a company's, a proxy's) one broken client
must not lock out the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nllbd import log
from nllbd.errors import RateLimited
from nllbd.security.bounded import BoundedMap
from nllbd.security.gcra import MICROSECOND, Buckets, RatePolicy
from nllbd.security.ports import AuditTrail

#: Failures of one address: a hundred by mistake, then one every two seconds.
POLICY = RatePolicy(per_minute=30, burst=100)
#: Of these, how many are logged: a flood must not fill a disk. (The audit log sums up by itself.)
_TOLD = RatePolicy(per_minute=6, burst=10)
_REMEMBERED = 65_536

logger = log.get_logger(__name__)


class FailedAttempts:
    """Counts failures by network (an address, or an IPv6 client's /64). `clock` counts seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, audit: AuditTrail | None = None) -> None:
        self._audit = audit
        self._clock = clock
        self._failures = Buckets()
        self._told = Buckets()
        self._good: BoundedMap[tuple[str, bytes], bool] = BoundedMap(_REMEMBERED)

    def check(self, network: str, digest: bytes) -> None:
        """Raises RateLimited when this network has failed too often and was never right with this credential."""
        found = self._failures.peek(network, POLICY, self._now_us())
        if found is None or found.allowed or self._good.get((network, digest)):
            return
        raise RateLimited("too many failed authentications", retry_after_s=found.retry_after_us * MICROSECOND)

    def note_success(self, network: str, digest: bytes) -> None:
        """The credential with this digest is good."""
        if self._good.get((network, digest)) is None:
            self._good.put((network, digest), True)

    def note_failure(self, network: str, client: str, reason: str, digest: bytes) -> None:
        """Count a failure; tell of it. The credential itself is not among what is told."""
        self._good.pop((network, digest))
        now_us = self._now_us()
        self._failures.charge(network, POLICY, now_us)
        if self._audit is not None:
            self._audit.failed_authentication(network, reason)
        if self._told.charge(network, _TOLD, now_us).allowed:
            logger.warning("authentication failed", client=client, reason=reason)

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)
