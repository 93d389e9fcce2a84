"""The server below the application: who is too slow is cut off, and takes nothing from anybody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

HEAD = b"GET /version HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nllbd.http.server.HEAD_TIMEOUT_S", 1.0)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A header byte now and then, for ever."""
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.02)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any] | None]:
    content = await asyncio.wait_for(reader.read(), 30)
    if not content:
        return 0, None
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def test_slow_headers_are_408_and_the_end(short_head: None, service: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(HEAD + b"X-Slow: ")
    dripping = asyncio.create_task(drip(writer))
    status, answer = await read_answer(reader)
    dripping.cancel()
    assert status == 408
    assert answer is not None
    assert (answer["error"]["code"], answer["error"]["field"]) == ("body_timeout", None)
    assert service.context.lifecycle.num_in_flight == 0
    writer.close()


async def test_a_connection_that_says_nothing_is_closed_without_an_answer(short_head: None, service: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    assert await read_answer(reader) == (0, None)
    writer.close()


async def test_the_second_request_s_headers_have_their_own_time(short_head: None, service: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(HEAD + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    await reader.readexactly(length)
    await asyncio.sleep(1.5)  # idle is not slow: keep-alive has its own, longer time
    writer.write(HEAD)
    dripping = asyncio.create_task(drip(writer))
    status, _ = await read_answer(reader)
    dripping.cancel()
    assert status == 408
    writer.close()


async def test_a_request_that_is_worked_on_for_long_is_not_slow(short_head: None, start_service: Any) -> None:
    service = await start_service(runner="fake:step_ms=40")
    status, answer = await service.translate("A sentence that takes a while.")
    assert (status, answer["translated_text"]) == (200, "A sentence that takes a while.")


async def test_many_slow_connections_leave_room_for_a_quick_one(service: Any) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(200)]
    for _, writer in slow:
        writer.write(HEAD)
    assert (await service.translate("Hello there."))[0] == 200
    for _, writer in slow:
        writer.close()


async def test_too_many_headers_are_400(service: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n")
    status, answer = await read_answer(reader)
    assert status == 400
    assert answer is not None
    assert answer["error"]["code"] == "invalid_value"
    writer.close()


async def test_who_takes_nothing_of_the_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, service: Any, eventually: Any
) -> None:
    """Asks again and again, and reads none of it: megabytes would have to wait in our memory."""
    monkeypatch.setattr("nllbd.http.server.STALL_TIMEOUT_S", 0.3)
    _, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def ask() -> None:
        while True:
            writer.write(b"GET /languages HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            await writer.drain()

    asking = asyncio.create_task(ask())
    await eventually(asking.done, "the end of the connection")
    assert isinstance(asking.exception(), ConnectionError)
