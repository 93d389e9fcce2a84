"""What credentials and rate limits cost a request, in memory: microseconds of `auth.authenticate`, best of five.

    python -m bench.micro_security [--repeats 20000]

The mocked request is made once; what is measured is finding the credential, telling whose it is, and charging a unit.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from nllbd.config import Settings
from nllbd.http import auth
from nllbd.http.context import CONTEXT, EXCHANGE, Exchange
from nllbd.principal import Scope
from nllbd.security.guard import Guard
from nllbd.store import key_text
from nllbd.store.keys import KeyCache
from nllbd.store.records import KeyChanges, KeyRecord

_ROUTE = "/v2/translate"
_API_KEY, _SECRET = "k" * 20, "s" * 32
_LIMIT: dict[str, Any] = {"rate_limit_per_minute": 10**9, "rate_limit_burst": 10**6}
_ROUNDS = 5


class _OneKey:
    """A store with one key in it."""

    def __init__(self, record: KeyRecord) -> None:
        self._record = record

    async def key_generation(self) -> int:
        return 1

    async def key_changes(self, since: int) -> KeyChanges:
        return KeyChanges(since, (), frozenset())

    async def key_page(self, after_id: str) -> tuple[KeyRecord, ...]:
        return (self._record,) if after_id == "" else ()

    async def revoked_sessions_page(self, after_id: str) -> tuple[str, ...]:
        return ()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20_000)
    repeats = parser.parse_args().repeats
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    record = KeyRecord(key_id, "bench", key_text.digest(text), frozenset({Scope.TRANSLATE}), datetime.now(UTC))
    token = jwt.encode({"sub": "a", "exp": time.time() + 3600}, _SECRET, algorithm="HS256")
    cases: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("nothing set", {}, {}),
        ("rate limit by address", _LIMIT, {}),
        ("configured key", {"api_key": _API_KEY}, {"X-API-Key": _API_KEY}),
        ("stored key", {}, {"X-API-Key": text}),
        ("JWT", {"jwt_secret": _SECRET}, {"Authorization": f"Bearer {token}"}),
        ("stored key, rate limit", _LIMIT, {"X-API-Key": text}),
    ]
    for name, settings, headers in cases:
        cost_s = asyncio.run(_measure(Settings(**settings), record if "stored" in name else None, headers, repeats))
        print(f"{name:24} {cost_s * 1e6:6.2f} µs")


async def _measure(settings: Settings, record: KeyRecord | None, headers: Mapping[str, str], repeats: int) -> float:
    """Seconds a request."""
    keys = KeyCache()
    if record is not None:
        keys.attach(_OneKey(record))
        await keys.refresh()
    accounts: Any = SimpleNamespace(keys=keys, audit=None, has_store=record is not None)
    app = web.Application()
    context: Any = SimpleNamespace(guard=Guard(settings, accounts))
    app[CONTEXT] = context
    request = make_mocked_request("POST", _ROUTE, headers=dict(headers), app=app)
    exchange = request[EXCHANGE] = Exchange("id", "192.0.2.1", _ROUTE)
    best_s = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(repeats):
            exchange.has_credentials = False
            await auth.authenticate(request)
        best_s = min(best_s, (time.perf_counter() - began) / repeats)
    return best_s


if __name__ == "__main__":
    main()
