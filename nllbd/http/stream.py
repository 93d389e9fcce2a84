"""Server-Sent Events: a translation sentence by sentence, as each is final.

A client that reads slowly is written to no faster than it reads: what waits for it is its own answer, which is held
anyway, and a few dozen KiB on their way. One that reads nothing at all for `STALL_S` is cut off.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import msgspec
from aiohttp import hdrs, web

from nllbd import log
from nllbd.errors import InternalError, InvalidValue, NllbdError
from nllbd.http import service
from nllbd.http.context import CONTEXT, EXCHANGE
from nllbd.http.dialects import native
from nllbd.http.errors import as_nllbd_error, error_body
from nllbd.job import SegmentEvent, TranslationJob, TranslationResult

HEARTBEAT_S = 10.0
STALL_S = 60.0
_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}

_REFUSAL = re.compile(r"q\s*=\s*0(\.0*)?")
_HEARTBEAT = b": still working\n\n"

logger = log.get_logger(__name__)

_Item = SegmentEvent | TranslationResult


def wants_stream(request: web.Request, asked: bool) -> bool:
    """Whether the client asked for events, in the body or by its Accept header."""
    return asked or any(map(_is_events, request.headers.get(hdrs.ACCEPT, "").split(",")))


def _is_events(wanted: str) -> bool:
    """Whether one of the types in an Accept header is that of events, and not excluded (`q=0`)."""
    kind, *parameters = (part.strip().lower() for part in wanted.split(";"))
    return kind == "text/event-stream" and not any(_REFUSAL.fullmatch(parameter) for parameter in parameters)


async def answer(request: web.Request, job: TranslationJob) -> web.StreamResponse:
    """Stream a job's segments. What goes wrong at once is an ordinary error answer, what goes wrong later an event.

    Raises InvalidValue for alternatives: which ones are best is known only when all is done.
    """
    if job.num_alternatives:
        raise InvalidValue("alternatives cannot be streamed; ask without stream for them", field="alternatives")
    async with aclosing(service.stream(request, job)) as events:
        first = asyncio.ensure_future(anext(events))
        try:
            await asyncio.wait({first}, timeout=HEARTBEAT_S)
            if first.done():
                first.result()  # errors found up front still get their own status
            return await _stream(request, first, events)
        finally:
            await _end(first)


async def _stream(
    request: web.Request, first: asyncio.Future[_Item], events: AsyncIterator[_Item]
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    if not first.done():
        await response.write(_HEARTBEAT)
    async with _Heartbeat(request, response):
        try:
            await _send(request, response, await first)
            async for item in events:
                await _send(request, response, item)
        except Exception as error:
            await _send_error(request, response, error)
    await response.write_eof()
    return response


async def _end(task: asyncio.Future[_Item]) -> None:
    """See that nothing runs in the generator any more, so that it can be closed."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task


async def _send(request: web.Request, response: web.StreamResponse, item: SegmentEvent | TranslationResult) -> None:
    if isinstance(item, SegmentEvent):
        await _write(request, response, _event("segment", msgspec.json.encode(native.render_event(item))))
        return
    model = request.app[CONTEXT].checkpoint.name
    await _write(request, response, _event("done", msgspec.json.encode(native.render_end(item, model))))


async def _send_error(request: web.Request, response: web.StreamResponse, error: Exception) -> None:
    """The `error` event: the status line has long been sent."""
    if isinstance(error, ConnectionError):
        raise error
    typed, _ = as_nllbd_error(error)
    if isinstance(typed, InternalError) and not isinstance(error, NllbdError):
        logger.error("unexpected error", **log.describe_exception(error))
    exchange = request[EXCHANGE]
    exchange.code = typed.code
    await _write(request, response, _event("error", error_body(typed, exchange.request_id)))


async def _write(request: web.Request, response: web.StreamResponse, event: bytes) -> None:
    """Write as fast as the client reads. One that has stopped reading is one that left."""
    try:
        async with asyncio.timeout(STALL_S):
            await response.write(event)
    except TimeoutError:
        logger.info("stalled reader cut off", stalled_s=STALL_S)
        if request.transport is not None:
            request.transport.abort()
        raise asyncio.CancelledError from None


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class _Heartbeat:
    """Writes a comment every `HEARTBEAT_S` so that proxies do not take a slow answer for a dead one.

    Not to a client that is behind with reading: it has enough to read, and only one task may wait for it.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._beat())

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _beat(self) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                if not self._request.protocol.writing_paused:
                    await self._response.write(_HEARTBEAT)
