"""What a client is told of its rate limit: `RateLimit-Policy` and `RateLimit` as in the Internet-Draft
draft-ietf-httpapi-ratelimit-headers-11 (May 2026), and the older `X-RateLimit-*` that clients know.

A bucket of `burst` units that fills up in `window_s` is what the draft calls a quota of so many units in that window;
`r` units of it are left, and after `t` seconds it is full again.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import lru_cache

from nllbd.security.gcra import Decision, RatePolicy

_POLICY, _STATE = "RateLimit-Policy", "RateLimit"
_LIMIT, _REMAINING, _RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
NAMES = (_POLICY, _STATE, _LIMIT, _REMAINING, _RESET)


def add(headers: MutableMapping[str, str], decision: Decision) -> None:
    """Add the headers of one decision. Times are whole seconds, rounded up: who waits that long has waited enough."""
    reset_s = -(-decision.full_after_us // 1_000_000)
    headers[_POLICY] = _policy(decision.policy)
    headers[_STATE] = f'"default";r={decision.remaining};t={reset_s}'
    headers[_LIMIT] = str(decision.policy.burst)
    headers[_REMAINING] = str(decision.remaining)
    headers[_RESET] = str(reset_s)


@lru_cache(maxsize=64)
def _policy(policy: RatePolicy) -> str:
    return f'"default";q={policy.burst};w={policy.window_s}'
