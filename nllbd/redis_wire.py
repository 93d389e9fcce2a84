"""What we use of the Redis library, in one place: connections by URL, one round trip, and what can go wrong on one.

No retries, no pool, no timeouts of its own: those are the business of whoever calls (`redis_client`). The library is
loaded at the first URL: without Redis a start need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nllbd.redis_sentinel import make_sentinel_pool

CONNECT_TIMEOUT_S = 2.0
#: What a broken, strange or refusing server makes of a connection or a round trip: the library's own errors, and
#: whatever its parser stumbles over.
FAILURES = (Exception,)

Argument = bytes | str | int | float
Command = Sequence[Argument]


class RedisProblem(Exception):
    """A call without a result. Never reaches a client of ours."""


class RedisAway(RedisProblem):
    """Redis was not reached in time: down, stalled, loading, or it refuses our password."""


class RedisRefused(RedisProblem):
    """Redis answered with an error. `code` is that error's first word: NOSCRIPT, OOM, READONLY, …"""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def make_pool(url: str) -> Any:
    """The library's factory of connections to a server, or to the master that Sentinels name; nothing is opened yet.

    URLs: `redis://`, `rediss://` (TLS), `unix://`, and `redis+sentinel://` or `rediss+sentinel://` with the Sentinels'
    addresses in place of a host, as `redis_sentinel` reads them.
    Raises ValueError for one that cannot be meant.
    """
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig

    options: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,  # callers have their own
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "client_name": "nllbd",
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if urlsplit(url).scheme.endswith("+sentinel"):
        return make_sentinel_pool(url, options)
    return ConnectionPool.from_url(url, **options)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. `max_memory_bytes` 0 = no bound."""

    version: str
    max_memory_bytes: int
    policy: str


async def look_at(url: str, timeout_s: float) -> ServerFacts:
    """Connect and ask a server about itself, for diagnosis. Raises RedisAway saying why, RedisRefused, ValueError."""
    connection = make_pool(url).make_connection()
    try:
        async with asyncio.timeout(timeout_s):
            (reply,) = await round_trip(connection, [("INFO",)])
    except TimeoutError:
        raise RedisAway(f"no reply in {timeout_s:g} s") from None
    except FAILURES as error:
        raise RedisAway(describe(error)) from None
    finally:
        await connection.disconnect(nowait=True)
    if isinstance(reply, RedisRefused):
        raise reply
    facts = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    return ServerFacts(facts["redis_version"], int(facts.get("maxmemory", 0)), facts.get("maxmemory_policy", "unknown"))


async def round_trip(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Raw replies; an error reply is a RedisRefused in its place. Raises what the library raises."""
    await connection.connect()
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [await _read_reply(connection) for _ in commands]


async def _read_reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except Exception as error:
        from redis.exceptions import ResponseError

        if not isinstance(error, ResponseError):
            raise
        return RedisRefused(error.status_code or str(error).partition(" ")[0])


def describe(error: Exception) -> str:
    """What to tell an operator: the kind of error and the server's own short words."""
    return f"{type(error).__name__}: {error}"[:200]
