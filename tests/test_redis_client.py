"""The link to Redis, against a real server that is paused, killed, restarted, locked and lying."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nllbd import metrics as m
from nllbd.metrics import Metrics
from nllbd.redis_client import RedisAway, RedisLink, RedisRefused

MakeLink = Callable[..., Awaitable[RedisLink]]
UP_WITHIN_S = 30.0
#: What a call on a loaded machine may take at most: orders of magnitude above its timeout, far below any default.
FAST_S = 2.0


@pytest.fixture
async def make_link() -> AsyncIterator[MakeLink]:
    links: list[RedisLink] = []

    async def make(url: str, *, is_up: bool = True, **options: Any) -> RedisLink:
        options.setdefault("timeout_s", 1.0)
        links.append(RedisLink(url, **options))
        links[-1].start()
        assert not is_up or await links[-1].wait_up(UP_WITHIN_S)
        return links[-1]

    yield make
    for link in links:
        await link.close()


async def test_calls_and_their_raw_replies(start_redis: Any, make_link: MakeLink) -> None:
    link = await make_link(start_redis().url)
    assert await link.call("SET", "a", b"\xff\x00", "PX", 60_000) == b"OK"
    assert await link.call("MGET", "a", "b") == [b"\xff\x00", None]
    assert await link.call("EVAL", "return {1, ARGV[1]}", 0, "x") == [1, b"x"]


@pytest.mark.parametrize(("command", "code"), [(("EVALSHA", "0" * 40, 0), "NOSCRIPT"), (("NOSUCH",), "ERR")])
async def test_a_refusal_says_why_and_opens_nothing(
    start_redis: Any, make_link: MakeLink, command: tuple[str, ...], code: str
) -> None:
    link = await make_link(start_redis().url)
    replies = await link.call_many([("SET", "a", 1), command, ("GET", "a")])
    assert (replies[0], replies[1].code, replies[2]) == (b"OK", code, b"1")
    with pytest.raises(RedisRefused):
        await link.call(*command)
    assert not link.is_open


async def test_each_of_many_calls_at_once_gets_its_own_reply(start_redis: Any, make_link: MakeLink) -> None:
    metrics = Metrics()
    link = await make_link(start_redis().url, name="cache", metrics=metrics, timeout_s=10.0)
    replies = await asyncio.gather(*(link.call("ECHO", str(number)) for number in range(1000)))
    assert replies == [str(number).encode() for number in range(1000)]
    assert metrics.value(m.REDIS_DURATION, link="cache") < 100, "they travel together"
    assert metrics.value(m.REDIS_UP, link="cache") == 1


async def test_cancelled_callers_mix_up_nobodys_replies(start_redis: Any, make_link: MakeLink) -> None:
    link = await make_link(start_redis().url, timeout_s=10.0)

    async def echo(number: int) -> None:
        assert await link.call("ECHO", str(number)) == str(number).encode()

    tasks = [asyncio.create_task(echo(number)) for number in range(300)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results[::3]} == {asyncio.CancelledError}
    assert all(result is None for index, result in enumerate(results) if index % 3)


async def test_paused_then_running_again(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    metrics = Metrics()
    link = await make_link(server.url, name="cache", metrics=metrics, timeout_s=0.05)
    await link.call("SET", "a", "1")
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    while not link.is_open:
        with pytest.raises(RedisAway):
            await link.call("GET", "a")
    assert time.monotonic() - began < FAST_S
    with pytest.raises(RedisAway, match="away"):
        await link.call("GET", "a")
    assert metrics.value(m.REDIS_UP, link="cache") == 0
    assert metrics.value(m.REDIS_ERRORS, link="cache", kind="timeout") >= 3
    server.signal(signal.SIGCONT)
    assert await link.wait_up(UP_WITHIN_S)
    assert metrics.value(m.REDIS_UP, link="cache") == 1


async def test_killed_and_started_again(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    link = await make_link(server.url)
    server.kill()
    with pytest.raises(RedisAway):
        await link.call("GET", "a")
    assert link.is_open
    server.start()
    assert await link.wait_up(UP_WITHIN_S)
    assert await link.call("GET", "a") is None


async def test_not_there_at_first(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    server.kill()
    link = await make_link(server.url, is_up=False)
    with pytest.raises(RedisAway):
        await link.call("GET", "a")
    server.start()
    assert await link.wait_up(UP_WITHIN_S)


async def test_a_password_is_used_and_a_wrong_one_is_never_told(
    start_redis: Any, make_link: MakeLink, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis(requirepass="right-password")
    link = await make_link(server.url)
    assert await link.call("PING") == b"PONG"
    wrong = await make_link(server.url.replace("right", "wrong"), is_up=False)
    assert not await wrong.wait_up(0.3)
    assert "password" not in caplog.text


async def test_a_unix_socket(start_redis: Any, make_link: MakeLink, tmp_path: Any) -> None:
    start_redis(unixsocket=str(tmp_path / "redis.sock"))
    link = await make_link(f"unix://{tmp_path}/redis.sock?db=3")
    assert await link.call("PING") == b"PONG"


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-77\r\n", b"*9999999\r\n", b"\x00\xff\r\n", b""]
)
async def test_what_is_not_redis_is_away(make_link: MakeLink, reply: bytes) -> None:
    async def lie(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        if not reply:
            writer.close()

    liar = await asyncio.start_server(lie, "127.0.0.1", 0)
    port = liar.sockets[0].getsockname()[1]
    link = await make_link(f"redis://127.0.0.1:{port}", is_up=False, timeout_s=0.05)
    assert not await link.wait_up(0.3)
    with pytest.raises(RedisAway):
        await link.call("GET", "a")
    await link.close()
    liar.close()


async def test_closing_ends_what_waits(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    link = await make_link(server.url, timeout_s=UP_WITHIN_S)
    server.signal(signal.SIGSTOP)
    waiting = [asyncio.create_task(link.call("GET", str(number))) for number in range(700)]
    await asyncio.sleep(0)
    await link.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {RedisAway}
    with pytest.raises(RedisAway):
        await link.call("GET", "a")


async def test_too_many_waiting_calls_are_refused(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    link = await make_link(server.url, timeout_s=0.2)
    server.signal(signal.SIGSTOP)
    results = await asyncio.gather(*(link.call("GET", "a") for _ in range(6000)), return_exceptions=True)
    assert {type(result) for result in results} == {RedisAway}
    assert sum("too many" in str(result) for result in results) > 1000
