"""What counts against a quota, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nllbd.http import service
from nllbd.http.context import EXCHANGE
from nllbd.http.service import ANONYMOUS_ACCOUNT, account_of
from nllbd.principal import Principal, anonymous

SENTENCES = "One is here. Two is here. Three is here. Four is here."
Eventually = Callable[..., Awaitable[None]]


def used(running: Any, account: str = ANONYMOUS_ACCOUNT) -> int:
    return int(running.context.accounts.usage.used_this_month(account))


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every sender is a key with 100 characters a month; its account."""
    require = service.require_authenticated

    def pretend(request: Any) -> None:
        request[EXCHANGE].principal = Principal(id="key:k1", key_id="k1", monthly_characters=100)
        require(request)

    monkeypatch.setattr(service, "require_authenticated", pretend)
    return "key:k1"


async def test_an_answer_is_booked_cached_or_not(start_service: Any) -> None:
    running = await start_service()
    for _ in range(2):
        assert (await running.translate(["hello", "world!"]))[0] == 200
    assert used(running) == 22


async def test_refused_and_failed_requests_are_free(start_service: Any) -> None:
    running = await start_service(runner="fake:step_ms=50")
    assert (await running.translate("hello", target_lang="xx"))[0] == 400
    assert (await running.translate("hello there", timeout_s=0.01))[0] == 504
    assert used(running) == 0


async def test_who_leaves_before_the_answer_pays_nothing(start_service: Any, eventually: Eventually) -> None:
    running = await start_service(runner="fake:step_ms=30")
    task = asyncio.create_task(running.translate("a long sentence that takes its time"))
    await eventually(lambda: running.context.lifecycle.num_in_flight == 1)
    task.cancel()
    await eventually(lambda: running.context.lifecycle.num_in_flight == 0)
    assert used(running) == 0


async def test_a_stream_that_is_read_to_its_end_costs_all_of_it(start_service: Any) -> None:
    running = await start_service()
    status, _ = await running.translate("  " + SENTENCES + "\n", stream=True)
    assert status == 200
    assert used(running) == len(SENTENCES) + 3


async def test_a_stream_that_is_left_costs_what_was_handed_out(start_service: Any, eventually: Eventually) -> None:
    running = await start_service(runner="fake:step_ms=20", max_num_lanes=1, num_beams=1)
    body = {"text": SENTENCES, "source_lang": "en", "target_lang": "fr", "stream": True}
    async with running.session.post(running.url + "/translate", json=body) as response:
        line = b""
        while not line.startswith(b"data:"):
            line = await response.content.readline()
        response.close()
    await eventually(lambda: running.context.lifecycle.num_in_flight == 0)
    assert 0 < used(running) < len(SENTENCES)


async def test_requests_at_once_do_not_pass_the_quota(start_service: Any, limited: str) -> None:
    running = await start_service(runner="fake:step_ms=5")
    texts = ["x" * 30 + str(number) * 4 for number in range(8)]
    statuses = [status for status, _ in await asyncio.gather(*map(running.translate, texts))]
    assert sorted(statuses) == [200, 200] + [429] * 6
    assert used(running, limited) == 68


async def test_what_a_failed_request_held_is_given_back(start_service: Any, limited: str) -> None:
    running = await start_service(runner="fake:step_ms=50")
    for _ in range(3):
        assert (await running.translate("x" * 90, timeout_s=0.01))[0] == 504
    body = {"text": SENTENCES * 2, "source_lang": "en", "target_lang": "fr", "stream": True}
    async with running.session.post(running.url + "/translate", json=body) as response:
        refused = await response.json()
    assert (response.status, refused["error"]["code"]) == (429, "quota_exceeded")
    assert used(running, limited) == 0


def test_strangers_share_an_account() -> None:
    assert account_of(anonymous("10.0.0.1")) == account_of(anonymous("10.0.0.2")) == ANONYMOUS_ACCOUNT
    assert account_of(Principal(id="key:a")) == "key:a"
