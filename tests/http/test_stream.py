"""Streams under clients that read slowly, leave or never read, and behind a real nginx."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nllbd.http.app import build_app
from nllbd.http.server import make_runner

Eventually = Callable[..., Awaitable[None]]
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
LONG = "A sentence with enough letters in it to take a good many steps of the engine."


def body_of(text: str | list[str], **more: Any) -> dict[str, Any]:
    return {"text": text, "source_lang": "en", "target_lang": "fr", "stream": True, **more}


def request_of(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def events_of(content: str) -> list[tuple[str, Any]]:
    """Name and data of each event; everything else must be a comment."""
    events = []
    for block in content.strip().split("\n\n"):
        if not block.startswith(":"):
            found = re.fullmatch(r"event: (\w+)\ndata: (.*)", block)
            assert found, block
            events.append((found[1], json.loads(found[2])))
    return events


def sentences(count: int) -> str:
    return " ".join(f"Sentence number {number} of this text is here." for number in range(count))


@pytest.fixture
async def narrow(service: Any) -> AsyncIterator[int]:
    """The port of the same application, where the kernel holds little of what clients do not read."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    runner = make_runner(build_app(service.context), shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    yield listener.getsockname()[1]
    await runner.cleanup()


async def connect(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


async def test_several_texts_interleave(start_service: Any) -> None:
    """The second text's segments do not wait for the first's long sentence."""
    service = await start_service(runner="fake:step_ms=5")
    texts = [f"{LONG * 2}\nEnd.", "One. Two. Three.", "", "12:30"]
    _, content, _ = await service.request("POST", "/translate", json=body_of(texts))
    *segments, (last, _) = events_of(content)
    assert last == "done"
    order = [event["text_index"] for _, event in segments]
    assert order.index(0) > order.index(1)
    for index, text in enumerate(texts):
        mine = [event for _, event in segments if event["text_index"] == index]
        assert "".join(event["text"] for event in mine) == text
        assert [event["segment_index"] for event in mine] == list(range(len(mine)))


async def test_heartbeats_come_before_the_first_segment_too(
    start_service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nllbd.http.stream.HEARTBEAT_S", 0.05)
    service = await start_service(runner="fake:step_ms=10")
    status, content, _ = await service.request("POST", "/translate", json=body_of(LONG))
    assert status == 200
    assert content.startswith(": still working\n\n")
    assert [name for name, _ in events_of(content)] == ["segment", "done"]


async def test_an_error_after_the_first_heartbeat_is_an_event(
    start_service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nllbd.http.stream.HEARTBEAT_S", 0.05)
    service = await start_service(runner="fake:step_ms=20")
    status, content, response = await service.request("POST", "/translate", json=body_of(LONG * 4, timeout_s=0.4))
    assert status == 200
    ((name, error),) = events_of(content)
    assert name == "error"
    assert error["error"]["code"] == "deadline_exceeded"
    assert error["error"]["request_id"] == response.headers["X-Request-Id"]


async def test_a_client_that_leaves_before_the_first_segment(start_service: Any, eventually: Eventually) -> None:
    service = await start_service(runner="fake:step_ms=20")
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request_of(body_of(LONG * 8)))
    await eventually(lambda: service.context.engine.stats.num_running > 0)
    writer.transport.abort()
    await eventually(lambda: service.context.engine.stats.num_running == 0)
    await eventually(lambda: service.context.lifecycle.num_in_flight == 0)
    assert service.context.translator.admission.num_tokens == 0


async def test_a_slow_reader_gets_it_all_and_holds_up_nobody(service: Any, narrow: int) -> None:
    text = sentences(1500)
    client = await connect(narrow)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request_of(body_of(text)))
    received = bytearray(await loop.sock_recv(client, 1000))  # the stream has begun, and is not read on
    for _ in range(20):
        status, _ = await service.translate("Somebody else's sentence.")
        assert status == 200
    assert len(received) <= 1000
    while b"event: done" not in received[-1000:]:
        received += await loop.sock_recv(client, 65536)
    client.close()
    decoded = b"".join(_chunks(bytes(received).partition(b"\r\n\r\n")[2])).decode()
    segments = [event for name, event in events_of(decoded) if name == "segment"]
    assert "".join(event["text"] for event in segments) == text


def _chunks(content: bytes) -> Iterator[bytes]:
    """The payload of a body in chunks, the end of which need not be there."""
    while content:
        size, _, rest = content.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return
        yield rest[:length]
        content = rest[length + 2 :]


async def test_who_never_reads_is_cut_off(
    service: Any, narrow: int, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nllbd.http.stream.STALL_S", 0.3)
    monkeypatch.setattr("nllbd.http.stream.HEARTBEAT_S", 0.02)
    client = await connect(narrow)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request_of(body_of(sentences(2500))))
    await eventually(lambda: service.context.lifecycle.num_in_flight == 1)
    await eventually(lambda: service.context.lifecycle.num_in_flight == 0)
    assert service.context.translator.admission.num_tokens == 0
    assert await _count_to_the_end(client) < 200_000  # of the half million that the answer has
    status, _ = await service.translate("Hello there.")
    assert status == 200


async def _count_to_the_end(client: socket.socket) -> int:
    """Bytes that still come, until the connection ends or is reset."""
    received = 0
    try:
        while chunk := await asyncio.get_running_loop().sock_recv(client, 65536):
            received += len(chunk)
    except ConnectionResetError:
        pass
    client.close()
    return received


# Behind nginx


@pytest.fixture(params=["", "proxy_http_version 1.1; proxy_set_header Connection '';"], ids=["http1.0", "http1.1"])
def start_nginx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Starts nginx with its default buffering before the given port; returns its URL."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    running: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            own = probe.getsockname()[1]
        paths = "".join(
            f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
            f"http {{ access_log off; {paths} gzip on; gzip_types *;\n"
            f"  server {{ listen 127.0.0.1:{own};\n"
            f"    location / {{ proxy_pass http://127.0.0.1:{port}; proxy_read_timeout 2s; {request.param} }} }} }}\n"
        )
        command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", own)).close()
                return f"http://127.0.0.1:{own}"
            except OSError:
                assert time.monotonic() < end, (tmp_path / "error.log").read_text()
                time.sleep(0.01)

    yield start
    for process in running:
        process.terminate()
        process.wait(30)


async def test_through_nginx(
    start_service: Any, start_nginx: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Events come one by one, heartbeats keep nginx (which gives up after 2 s here) waiting, leaving aborts."""
    monkeypatch.setattr("nllbd.http.stream.HEARTBEAT_S", 0.4)
    service = await start_service(runner="fake:step_ms=30")
    url = await asyncio.to_thread(start_nginx, service.port)
    async with aiohttp.ClientSession(headers={"Accept-Encoding": "gzip"}) as session:
        text = f"Hi.\n{LONG}"
        async with session.post(f"{url}/translate", json=body_of(text)) as response:
            assert response.status == 200
            received = b""
            while b"event: segment" not in received:
                received += await response.content.readany()
            assert b"event: done" not in received  # the long one has 2 s and more to go
            assert service.context.lifecycle.num_in_flight == 1
            received += await response.content.read()
        segments = [event for name, event in events_of(received.decode()) if name == "segment"]
        assert "".join(event["text"] for event in segments) == text
        async with session.post(f"{url}/translate", json=body_of(f"Hi.\n{LONG * 4}")) as response:
            await response.content.readany()
            assert service.context.engine.stats.num_running > 0
            response.close()
        await eventually(lambda: service.context.engine.stats.num_running == 0)
        await eventually(lambda: service.context.lifecycle.num_in_flight == 0)
