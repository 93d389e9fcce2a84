"""Listening sockets and the application behind them: accepting begins and ends apart for our own and inherited ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from nllbd.sockets import Listener

BACKLOG = 1024


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
            self.servers.append(await serve(self.runner.server, sock=listener.sock, backlog=BACKLOG))

    def stop_accepting(self) -> None:
        """Close our descriptors. What an inherited socket's backlog holds is left to whoever shares it."""
        for server in self.servers:
            server.close()
        for listener in self.listeners:
            listener.close()
