"""The server below the application: answers what never becomes a request (malformed HTTP) in our error shape, and
switches on what aiohttp leaves off. Knows nothing of translation.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from nllbd import log
from nllbd.errors import BodyTimeout, InternalError, InvalidValue
from nllbd.http.errors import REQUEST_ID_HEADER, SERVER, as_nllbd_error, error_body, error_response

#: Longer than nginx keeps its upstream connections (60 s), so that it is nginx who closes idle ones.
KEEPALIVE_TIMEOUT_S = 75.0
#: How long an answer to a body that was not read waits for the rest of it, lest a reset destroys the answer.
LINGERING_TIME_S = 5.0
#: How long a request's line and headers may take, from the connection's or their own first byte. aiohttp has no limit.
HEAD_TIMEOUT_S = 20.0
#: How long a client may take none of what was written to it before it is cut off.
STALL_TIMEOUT_S = 60.0

#: The longest request line: deep-translator writes its text into the query, nine bytes a character.
MAX_LINE_BYTES = 65_536

logger = log.get_logger(__name__)

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def make_runner(app: web.Application, **options: Any) -> web.AppRunner:
    """The runner to serve `app` with: handlers are cancelled when their client goes away, and every error is JSON.

    `options` go to `web.AppRunner` (e.g. `shutdown_timeout`).
    """
    return _Runner(
        app,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,  # body.py does it, under the body's limit and with an error of its own
        keepalive_timeout=KEEPALIVE_TIMEOUT_S,
        max_line_size=MAX_LINE_BYTES,
        lingering_time=LINGERING_TIME_S,
        **options,
    )


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            _json_errors(server.request_handler),
            request_factory=_counting(server.request_factory),
            handler_cancellation=server.handler_cancellation,
            loop=server._loop,
            **server._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """A connection that answers malformed HTTP with the JSON error object and logs no byte of it; counts requests, and
    cuts off who sends headers or reads answers too slowly.
    """

    __slots__ = ("_has_begun", "_head_timer", "_stall_timer", "num_requests")

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.num_requests = 0
        self._has_begun = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(HEAD_TIMEOUT_S, self._end_slow_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._has_begun = False
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif data and (self.num_requests == 0 or (self._waiter is not None and not self._waiter.done())):
            # Nobody is being served, and these bytes have made no request yet: they are the beginning of one.
            self._has_begun = True
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(HEAD_TIMEOUT_S, self._end_slow_head)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_later(STALL_TIMEOUT_S, self._end_stalled)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _end_slow_head(self) -> None:
        """Close; with an answer for who has said something."""
        self._head_timer = None
        if self.transport is None:
            return
        if self._has_begun:
            self.transport.write(_too_slow())
        self.force_close()

    def _end_stalled(self) -> None:
        self._stall_timer = None
        if self.transport is not None:
            logger.info("a client took nothing of its answer", waited_s=STALL_TIMEOUT_S)
            self.transport.abort()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; nothing can be said any more")
        request_id = new_request_id()
        logger.info("malformed request", request_id=request_id, status=status, exception=type(exc).__name__)
        if isinstance(exc, LineTooLong):
            error: InvalidValue | InternalError = InvalidValue("the request line or a header is too long")
        elif 400 <= status < 500:
            error = InvalidValue("this is not well-formed HTTP/1.1")
        else:
            error = InternalError("an unexpected error; give the request id when you report it")
        response = error_response(error, request_id)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        about = log.describe_exception(error) if isinstance(error, BaseException) else {}
        logger.error("connection failed", **about)


def _too_slow() -> bytes:
    """The answer to a request whose headers did not come in time, as it goes over the wire."""
    request_id = new_request_id()
    logger.info("headers too slow", request_id=request_id)
    error = BodyTimeout(f"the request's headers did not arrive within {HEAD_TIMEOUT_S:g} s")
    body = error_body(error, request_id)
    head = (
        f"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{REQUEST_ID_HEADER}: {request_id}\r\nServer: {SERVER}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def is_first_on_connection(request: web.BaseRequest) -> bool:
    """Whether no request came before this one on its connection: it is not a kept-alive one."""
    return getattr(request.protocol, "num_requests", 1) <= 1


def count_silent(runner: web.AppRunner) -> int:
    """Connections that were accepted and have not sent a request yet."""
    connections = runner.server.connections if runner.server is not None else []
    return sum(1 for connection in connections if getattr(connection, "num_requests", 1) == 0)


def _counting(make_request: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    def make(message: Any, payload: Any, protocol: web.RequestHandler, writer: Any, task: Any) -> web.BaseRequest:
        if isinstance(protocol, _Connection):
            protocol.num_requests += 1
        return make_request(message, payload, protocol, writer, task)

    return make


def _json_errors(handle: _Handler) -> _Handler:
    """Errors that aiohttp raises before any middleware runs (an unknown `Expect`, say)."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            typed, headers = as_nllbd_error(error)
            return error_response(typed, new_request_id(), headers)

    return handler


def new_request_id() -> str:
    """A request id that no one has used before."""
    return secrets.token_hex(8)
