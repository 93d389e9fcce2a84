from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from nllbd.endpoint import ACCEPTERS, Endpoint
from nllbd.sockets import Listener

NUM_CLIENTS = 10 * ACCEPTERS


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    sock = socket.socket() if request.param == "tcp" else socket.socket(socket.AF_UNIX)
    with sock:
        sock.bind(("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "s"))
        sock.listen(1024)
        sock.setblocking(False)
        yield sock


def connect(sock: socket.socket) -> socket.socket:
    client = socket.socket(sock.family)
    client.connect(sock.getsockname())
    return client


async def begin(sock: socket.socket, *, inherited: bool) -> Endpoint:
    async def never(request: web.Request) -> web.Response:
        raise AssertionError("nothing is sent")

    app = web.Application()
    app.router.add_get("/", never)
    runner = web.AppRunner(app)
    await runner.setup()
    endpoint = Endpoint([Listener.of(sock, inherited)], runner, [])
    await endpoint.accept(inherited=inherited)
    return endpoint


def num_accepted(endpoint: Endpoint) -> int:
    assert endpoint.runner.server is not None
    return len(endpoint.runner.server.connections)


def test_a_rush_of_clients_is_accepted_in_few_turns(listening: socket.socket) -> None:
    async def scenario() -> None:
        endpoint = await begin(listening, inherited=False)
        clients = [connect(listening) for _ in range(NUM_CLIENTS)]
        turns = 0
        while num_accepted(endpoint) < NUM_CLIENTS:
            await asyncio.sleep(0)
            turns += 1
        assert turns <= 2 * NUM_CLIENTS / ACCEPTERS
        for client in clients:
            client.close()
        endpoint.stop_accepting()
        await endpoint.runner.cleanup()

    uvloop.run(scenario())


def test_who_waits_in_the_backlog_of_our_own_socket_is_taken_in(listening: socket.socket) -> None:
    async def scenario() -> None:
        endpoint = await begin(listening, inherited=False)
        address = listening.getsockname()
        clients = [connect(listening) for _ in range(NUM_CLIENTS)]
        await endpoint.take_in_backlog()
        endpoint.stop_accepting()
        assert num_accepted(endpoint) == NUM_CLIENTS
        await asyncio.sleep(0.01)
        # every descriptor of it is closed; a unix socket's path is gone
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            socket.socket(clients[0].family).connect(address)
        for client in clients:
            client.close()
        await endpoint.runner.cleanup()

    uvloop.run(scenario())


def test_an_inherited_socket_keeps_its_backlog_for_the_next_one(listening: socket.socket) -> None:
    async def scenario() -> None:
        heir = listening.dup()
        endpoint = await begin(listening, inherited=True)
        await endpoint.take_in_backlog()
        endpoint.stop_accepting()
        await asyncio.sleep(0.01)
        clients = [connect(heir) for _ in range(3)]
        assert num_accepted(endpoint) == 0
        await endpoint.runner.cleanup()
        following = await begin(heir, inherited=True)
        await following.take_in_backlog()
        for _ in clients:
            await asyncio.sleep(0)
        assert num_accepted(following) == len(clients)
        following.stop_accepting()
        await following.runner.cleanup()

    uvloop.run(scenario())
