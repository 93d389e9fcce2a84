"""How a connection to PostgreSQL comes about when several servers could be the primary. Knows no tables.

asyncpg asks the servers of a list one after another, all within one time limit: a first one whose machine is gone, so
that nothing answers at all, uses that limit up, and the second is never asked. Here each has a limit of its own, and
the next is asked as soon as one fails or is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

#: A server that has not answered by then is no longer waited for alone: the next one is asked beside it.
HEAD_START_S = 0.25
_DEFAULT_PORT = 5432
#: libpq's names, which asyncpg takes in the text of a URL only.
_IN_URL_ONLY = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)


def spread_hosts(url: str) -> str:
    """libpq's `//user@a:5432,b/db` as SQLAlchemy reads it: `//user@/db?host=a:5432&host=b:5432`; others unchanged."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return url
    named = [host if _has_port(host) else f"{host}:{_DEFAULT_PORT}" for host in hosts.split(",")]
    query = urlencode([*parse_qsl(parts.query), *(("host", host) for host in named)], quote_via=quote, safe=":/[]")
    return urlunsplit((parts.scheme, credentials + at, parts.path, query, parts.fragment))


async def connect(*, host: str | list[str] | None = None, port: int | list[int] | None = None, **options: Any) -> Any:
    """asyncpg's connection to the first server, in order, that fits; several: that takes writes, unless told otherwise.

    Takes `asyncpg.connect`'s arguments and those of `_IN_URL_ONLY`. `timeout` is each server's own. Raises OSError when
    none can be had, whatever the reason.
    """
    import asyncpg

    in_url = {name: options.pop(name) for name in _IN_URL_ONLY if name in options}
    if in_url:
        options["dsn"] = f"postgresql://?{urlencode(in_url)}"
    servers = list(_servers(host, port))
    if len(servers) > 1:
        options.setdefault("target_session_attrs", "read-write")

    def ask(address: dict[str, Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
        return lambda: asyncpg.connect(**address, **options)

    try:
        return await _first([ask(address) for address in servers])
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise ConnectionError(type(error).__name__) from error


def _servers(host: str | list[str] | None, port: int | list[int] | None) -> Iterator[dict[str, Any]]:
    if isinstance(host, list):
        ports = port if isinstance(port, list) else [port] * len(host)
        yield from ({"host": one, "port": its} for one, its in zip(host, ports, strict=True))
    else:
        yield {"host": host, "port": port}


async def _first(attempts: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> Any:
    """The earliest in order of those that came first; the others are ended. Raises the first one's error."""
    tasks: list[asyncio.Task[Any]] = []
    winner: asyncio.Task[Any] | None = None
    try:
        while winner is None:
            running = [task for task in tasks if not task.done()]
            if len(tasks) < len(attempts):
                running.append(asyncio.ensure_future(attempts[len(tasks)]()))
                tasks.append(running[-1])
            elif not running:
                return tasks[0].result()
            is_last = len(tasks) == len(attempts)
            await asyncio.wait(running, timeout=None if is_last else HEAD_START_S, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in tasks if task.done() and task.exception() is None), None)
        return winner.result()
    finally:
        await _end([task for task in tasks if task is not winner])


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel them; a connection that was made nevertheless is closed."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            result.terminate()


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]
