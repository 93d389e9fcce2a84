"""Which server is the master: Sentinels asked all at once. Serves the Redis library's pool of managed connections.

The library's own way asks them one after another with the time of a whole connection for each: a first one that is
gone together with the master's machine uses all of it up, at the very moment it matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

#: How long the slowest Sentinel is waited for. They are asked in the background, never by a request.
ASK_S = 0.5
_DEFAULT_PORT = 26379
_OF_SENTINELS = "sentinel_"


def make_sentinel_pool(url: str, options: dict[str, Any]) -> Any:
    """The library's factory of connections to the master; `options` are its arguments, nothing is opened yet.

    `redis+sentinel://user:password@one:26379,two/mymaster/0`; `rediss+sentinel://` speaks TLS with servers and
    Sentinels. Options of a `redis://` URL are for both (`ssl_ca_certs=…`); with `sentinel_` in front for Sentinels
    alone: `sentinel_username`, `sentinel_password`, `sentinel_ssl=false`. Raises ValueError.
    """
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import SentinelConnectionPool

    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    master, _, database = parts.path.strip("/").partition("/")
    if not master:
        raise ValueError("the name of the master is missing")
    scheme = parts.scheme.removesuffix("+sentinel")
    pairs = parse_qsl(parts.query)
    theirs = {name.removeprefix(_OF_SENTINELS): value for name, value in pairs if name.startswith(_OF_SENTINELS)}
    query = urlencode([pair for pair in pairs if not pair[0].startswith(_OF_SENTINELS)])
    served: dict[str, Any] = dict(parse_url(f"{scheme}://{credentials}{at}/{int(database or 0)}?{query}"))
    is_secure = served.pop("connection_class", None) is not None
    scheme = scheme if theirs.pop("ssl", "true").lower() != "false" else "redis"
    query = query if scheme == "rediss" else ""
    asked = [f"{scheme}://{host}/?{query}&{urlencode(theirs)}" for host in hosts.split(",")]
    sentinels = Sentinels([{**options, **_address(it)} for it in map(parse_url, asked)])
    make: Any = SentinelConnectionPool  # the library leaves it untyped
    return make(unquote(master), sentinels, **{**options, **served, "ssl": is_secure})


class Sentinels:
    """Sentinels by the arguments of a connection to each."""

    def __init__(self, addresses: Sequence[dict[str, Any]]) -> None:
        self.addresses = tuple(addresses)

    async def discover_master(self, name: str) -> tuple[str, int]:
        """Host and port of the master that the most recent failover made, of the answers that came in time.

        Raises ConnectionError when no Sentinel knows one that is up.
        """
        answers = await asyncio.gather(*(_ask(address, name) for address in self.addresses))
        known = [answer for answer in answers if answer is not None]
        if not known:
            raise ConnectionError(f"no Sentinel knows a master {name!r} that is up")
        _epoch, host, port = max(known)
        return host, port


async def _ask(address: dict[str, Any], name: str) -> tuple[int, str, int] | None:
    """One Sentinel's opinion: (epoch of the failover, host, port). None: away, or it knows no master that is up."""
    from redis.asyncio.connection import Connection

    arguments = dict(address)
    connection: Any = arguments.pop("connection_class", Connection)(**arguments)
    try:
        async with asyncio.timeout(ASK_S):
            await connection.connect()
            await connection.send_command("SENTINEL", "MASTER", name)
            reply = await connection.read_response(disable_decoding=True)
        facts = {key.decode(): value.decode() for key, value in zip(reply[::2], reply[1::2], strict=True)}
        if not {"s_down", "o_down", "disconnected"}.isdisjoint(facts["flags"].split(",")):
            return None
        return int(facts["config-epoch"]), facts["ip"], int(facts["port"])
    except Exception:  # whatever a strange or broken server makes of it: the others are asked as well
        return None
    finally:
        await connection.disconnect(nowait=True)


def _address(parsed: Any) -> dict[str, Any]:
    return {"host": "localhost", "port": _DEFAULT_PORT, **parsed}
