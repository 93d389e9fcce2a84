"""A bare aiohttp server on uvloop that answers JSON with JSON: the most that bench/micro_http.py could see.

python -m bench.echo PORT
"""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web


async def _ready(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _translate(request: web.Request) -> web.Response:
    asked = orjson.loads(await request.read())
    body = orjson.dumps({"translations": [{"text": asked["text"]}], "target_lang": asked["target_lang"]})
    return web.Response(body=body, content_type="application/json")


async def _serve(port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/readyz", _ready), web.post("/translate", _translate)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
