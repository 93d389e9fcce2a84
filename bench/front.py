"""The peers behind HTTP: a minimal aiohttp server that any of them could stand behind in production.

    python -m bench.front --model DIR --library ctranslate2 --port 8010 --max-batch 32 --workers 2

`POST /translate` takes the native request of nllbd (text, source_lang, target_lang, num_beams) and cuts texts into
sentences with the same code, so that all servers translate the same segments. CTranslate2 gets *dynamic batching*: a
free worker takes what waits, oldest first, up to `--max-batch` segments, after `--window-ms` for more to come.
transformers gets one segment at a time. No authentication, no limits, no metrics, no log: nothing holds it back.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web

from bench.contestants import KINDS, Contestant, Job, Output
from nllbd.checkpoint import read_checkpoint
from nllbd.languages import Language
from nllbd.text.segment import join, needs_translation, split
from nllbd.text.tokenizer import Tokenizer

MAX_SEGMENT_TOKENS = 200
MAX_LENGTH = 512


@dataclass(slots=True, eq=False)
class Waiting:
    """A segment that waits for a worker."""

    job: Job
    beams: int
    future: asyncio.Future[Output]


class Batcher:
    """Segments in, outputs out; `num_workers` batches run at a time, each in a thread (the libraries let go of
    Python's lock)."""

    def __init__(self, contestant: Contestant, num_workers: int, max_batch: int, window_s: float) -> None:
        self._contestant = contestant
        self._max_batch, self._window_s = max_batch, window_s
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(num_workers)
        self._workers = [asyncio.create_task(self._work()) for _ in range(num_workers)]

    async def translate(self, jobs: Sequence[Job], beams: int) -> list[Output]:
        loop = asyncio.get_running_loop()
        waiting = [Waiting(job, beams, loop.create_future()) for job in jobs]
        self._waiting.extend(waiting)
        self._arrived.set()
        return [await item.future for item in waiting]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if len(self._waiting) < self._max_batch and self._window_s:
                await asyncio.sleep(self._window_s)
            batch = self._take()
            if not batch:
                continue
            try:
                outputs = await loop.run_in_executor(self._threads, self._translate, batch)
            except Exception as error:  # the clients are to hear of it, and the worker goes on
                _settle(batch, error)
            else:
                for item, output in zip(batch, outputs, strict=True):
                    if not item.future.done():
                        item.future.set_result(output)

    def _take(self) -> list[Waiting]:
        """The oldest segments that still have somebody waiting, all with the same number of beams."""
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self._max_batch:
            if batch and self._waiting[0].beams != batch[0].beams:
                break
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    def _translate(self, batch: Sequence[Waiting]) -> list[Output]:
        how = {"batch_type": "examples", "max_batch_size": 0, "mode": "batch", "batch_size": 1}
        return self._contestant.prepare([item.job for item in batch], batch[0].beams, MAX_LENGTH, how)()


def _settle(batch: Sequence[Waiting], error: Exception) -> None:
    for item in batch:
        if not item.future.done():
            item.future.set_exception(RuntimeError(str(error)))


class Front:
    """The two routes."""

    def __init__(self, tokenizer: Tokenizer, batcher: Batcher) -> None:
        self._tokenizer, self._batcher = tokenizer, batcher

    async def ready(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def translate(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        texts = asked["text"] if isinstance(asked["text"], list) else [asked["text"]]
        source, target = (self._tokenizer.languages.resolve(asked[key], key) for key in ("source_lang", "target_lang"))
        made = await asyncio.gather(*(self._text(text, source, target, asked.get("num_beams", 4)) for text in texts))
        body = orjson.dumps({"translations": [{"text": text} for text in made], "target_lang": target.code})
        return web.Response(body=body, content_type="application/json")

    async def _text(self, text: str, source: Language, target: Language, beams: int) -> str:
        pieces = split(text, source, MAX_SEGMENT_TOKENS, self._tokenizer.count_tokens)
        places = [place for place, piece in enumerate(pieces) if needs_translation(piece.core, source)]
        code = self._tokenizer.language_id(target.code)
        jobs = [(self._tokenizer.encode(pieces[place].core, source.code), code) for place in places]
        translated = [piece.core for piece in pieces]
        for place, output in zip(places, await self._batcher.translate(jobs, beams), strict=True):
            translated[place] = self._tokenizer.decode(output)
        return join(pieces, translated, source, target)


async def _serve(options: argparse.Namespace) -> None:
    contestant = KINDS[options.library]()
    contestant.load(_spec(options))
    tokenizer = Tokenizer(read_checkpoint(options.tokenizer or options.model))
    front = Front(tokenizer, Batcher(contestant, options.workers, options.max_batch, options.window_ms / 1000))
    app = web.Application(client_max_size=1 << 22)
    app.add_routes([web.get("/readyz", front.ready), web.post("/translate", front.translate)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    await asyncio.Event().wait()


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    is_peer = options.library == "ctranslate2"
    return {
        "model": str(options.model),
        "precision": options.precision,
        "device": "cpu",
        "threads": options.threads,
        "settings": {"inter_threads": options.workers} if is_peer else {},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="in the library's own form")
    parser.add_argument("--tokenizer", type=Path, help="checkpoint folder with the SentencePiece model; default: model")
    parser.add_argument("--library", choices=["ctranslate2", "transformers"], required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="batches that run at a time")
    parser.add_argument("--threads", type=int, default=1, help="of one batch")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--window-ms", type=float, default=5.0)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
