"""Rate buckets that several hosts share: GCRA as one Lua script in Redis, by Redis's own clock.

A bucket is one integer, its TAT, which expires when the bucket is full again. Names are hashed: nobody's address or
subject is in Redis in clear. All keys carry one hash tag, so that a cluster keeps them together.
"""

from __future__ import annotations

import hashlib

from nllbd.redis_client import RedisLink, RedisRefused
from nllbd.security.gcra import Decision, RatePolicy

_PREFIX = b"{nllbd-rate}:"
_DIGEST_BYTES = 16

#: KEYS: a bucket. ARGV: emission interval in µs, burst. Returns {µs until the bucket is full, µs to wait; 0 = passed}.
#: The arithmetic is `gcra.decide`, step by step; Lua's numbers hold whole microseconds until the year 2255.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local ahead = (tonumber(redis.call('GET', KEYS[1]) or 0) or 0) - now
ahead = math.min(math.max(ahead, 0), burst * interval)
local wait = ahead + interval - burst * interval
if wait > 0 then
  return {ahead, wait}
end
ahead = ahead + interval
redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.max(1, math.ceil(ahead / 1000)))
return {ahead, 0}
"""
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisBuckets:
    """Buckets in Redis, reached through a link of their own."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link

    async def charge(self, name: str, policy: RatePolicy) -> Decision:
        """Take one unit out of a bucket, if there is one. Raises RedisProblem when Redis cannot say."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        arguments = (1, _PREFIX + digest, policy.interval_us, policy.burst)
        try:
            reply = await self.link.call("EVALSHA", _SHA, *arguments)
        except RedisRefused as error:
            if error.code != "NOSCRIPT":
                raise
            reply = await self.link.call("EVAL", SCRIPT, *arguments)
        return _decision(reply, policy)


def _decision(reply: list[int], policy: RatePolicy) -> Decision:
    ahead, wait = reply
    remaining = 0 if wait else policy.burst - -(-ahead // policy.interval_us)
    return Decision(not wait, policy, remaining, ahead, wait)
