"""A bare aiohttp server on uvloop that answers JSON with JSON: what bench/micro_http.py holds the daemon against.

    python -m bench.echo PORT

As its author would write it, and fast: orjson, no access log, no middleware. It answers with as many bytes as the
daemon, of the same form, so that neither side has less to send.
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
    text = asked["text"]
    item = {"text": text, "source_lang": asked["source_lang"], "detected_confidence": None, "alternatives": []}
    answer = {
        "translated_text": text,
        "translations": [{**item, "warnings": []}],
        "target_lang": asked["target_lang"],
        "model": "demo",
        "usage": {"characters": len(text), "segments": 1, "cached_segments": 0},
        "duration_ms": 0.1,
    }
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def _serve(port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/readyz", _ready), web.post("/translate", _translate)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
