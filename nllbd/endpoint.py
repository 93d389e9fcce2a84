"""Listening sockets and the application behind them: accepting begins and ends apart for our own and inherited ones."""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass

from aiohttp import web

from nllbd.sockets import Listener

BACKLOG = 1024
#: So many connections are accepted in a turn of the loop: a listening descriptor gives uvloop one a turn, and when
#: turns are long and clients many, those in the backlog would wait for a second and more.
ACCEPTERS = 16


@dataclass(slots=True, eq=False)
class Endpoint:
    """Listening sockets of one application, and the servers that accept on them."""

    listeners: list[Listener]
    runner: web.AppRunner
    servers: list[asyncio.Server]

    async def accept(self, *, inherited: bool) -> None:
        """Begin to accept on the inherited, or on our own sockets."""
        loop = asyncio.get_running_loop()
        for listener in self.listeners:
            if listener.is_inherited is not inherited:
                continue
            serve = loop.create_unix_server if listener.unix_path else loop.create_server
            assert self.runner.server is not None
            for sock in (listener.sock, *(listener.sock.dup() for _ in range(1, ACCEPTERS))):
                self.servers.append(await serve(self.runner.server, sock=sock, backlog=BACKLOG))

    async def take_in_backlog(self) -> None:
        """Accept what waits in the backlogs of our own sockets, which go away with them."""
        own = [listener.sock for listener in self.listeners if not listener.is_inherited]
        for _ in range(BACKLOG):
            if not own or not select.select(own, (), (), 0)[0]:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # what was accepted last is told to aiohttp in the next turn

    def stop_accepting(self) -> None:
        """Close our descriptors. What an inherited socket's backlog holds is left to whoever shares it."""
        for server in self.servers:
            server.close()
        for listener in self.listeners:
            listener.close()
