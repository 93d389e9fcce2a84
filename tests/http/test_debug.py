"""`/debug/engine`: who may see it, what it shows, and what it never does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nllbd.bridge.protocol import EngineState
from nllbd.http import context as http_context
from nllbd.principal import Principal, Scope

SECRET = "Schmetterlingsflügel"
ADMIN = Principal(id="key:boss", scopes=frozenset({Scope.TRANSLATE, Scope.ADMIN}))


@pytest.fixture
def as_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request comes from an administrator."""
    monkeypatch.setattr(http_context, "stranger", lambda address: ADMIN)


async def look(service: Any, query: str = "") -> Any:
    status, answer, _ = await service.request("GET", f"/debug/engine{query}")
    assert status == 200, answer
    return answer


async def test_strangers_and_translators_see_nothing(start_service: Any) -> None:
    service = await start_service()
    status, answer, _ = await service.request("GET", "/debug/engine")
    assert (status, answer["error"]["code"]) in {(401, "unauthorized"), (403, "forbidden")}
    service = await start_service(api_key="only translates")
    for headers, expected in (({}, 401), ({"X-API-Key": "wrong"}, 401), ({"X-API-Key": "only translates"}, 403)):
        status, _, _ = await service.request("GET", "/debug/engine", headers=headers)
        assert status == expected


@pytest.mark.usefixtures("as_admin")
async def test_an_idle_engine(start_service: Any) -> None:
    seen = await look(await start_service())
    assert (seen["state"], seen["answered"], seen["integrity"]) == ("ready", True, "ok")
    assert seen["scheduler"]["num_running"] == seen["kv"]["used_blocks"] == 0
    assert seen["clients"] == seen["last_steps"] == []


@pytest.mark.usefixtures("as_admin")
async def test_a_busy_engine(start_service: Any, eventually: Any) -> None:
    service = await start_service(runner="fake:step_ms=10")
    texts = [f"{SECRET} number {'x' * number}." for number in range(60)]
    asked = asyncio.create_task(service.translate(texts, priority="bulk"))
    await eventually(lambda: service.context.engine.stats.num_running > 0)
    seen = await look(service)
    (client,) = seen["clients"]
    assert (client["client"], client["priority"]) == ("key:boss", "bulk")
    assert client["num_running"] > 0
    assert client["num_lanes"] == 4 * client["num_running"]
    assert seen["integrity"] == "ok"
    assert seen["admission"]["num_segments"] > 0
    assert seen["last_steps"][-1]["step_ms"] >= 10
    assert (await look(service, "?integrity=0"))["integrity"] is None
    await asked
    seen = await look(service)
    assert seen["accounts"][0]["account"] == "key:boss"
    assert seen["accounts"][0]["characters_per_s"] > 0
    assert SECRET not in repr(seen)


@pytest.mark.usefixtures("as_admin")
async def test_an_engine_that_says_nothing(start_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await start_service()
    monkeypatch.setattr(service.context.engine, "_state", EngineState.RESTARTING)
    seen = await look(service)
    assert (seen["state"], seen["answered"], seen["integrity"]) == ("restarting", False, None)
    assert seen["scheduler"]["lane_limit"] is None


@pytest.mark.usefixtures("as_admin")
async def test_what_is_wrong_with_the_books_is_said(start_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nllbd.engine.engine import Engine

    def unbalanced(_: Engine) -> None:
        raise AssertionError("the waiting tokens are miscounted")

    monkeypatch.setattr(Engine, "check_integrity", unbalanced)
    assert (await look(await start_service()))["integrity"] == "the waiting tokens are miscounted"
