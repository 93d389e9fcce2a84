"""What every request passes through, outermost first: observe (id, log, metrics, errors), cors, gate, authenticate."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from nllbd import log, metrics
from nllbd.bridge.protocol import EngineState
from nllbd.errors import InternalError, NllbdError, NotReady
from nllbd.http import access, auth, rate_headers
from nllbd.http.context import CONTEXT, EXCHANGE, Exchange
from nllbd.http.dispatch import expect
from nllbd.http.errors import REQUEST_ID_HEADER, SERVER, as_nllbd_error, error_response
from nllbd.http.server import is_first_on_connection, new_request_id
from nllbd.tracing import NO_TRACING, TRACEPARENT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Answer in every state of the daemon, without credentials.
HEALTH_ROUTES = frozenset({"/livez", "/readyz", "/health"})
#: Everybody's: they say nothing of anybody's texts.
PUBLIC_ROUTES = HEALTH_ROUTES | {
    "/",
    "/static/{name}",
    "/languages",
    "/version",
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{name}",
    "/frontend/settings",
}
METRICS_ROUTE = "/metrics"
#: Asked by machines every few seconds: told of only when something is wrong.
PROBE_ROUTES = HEALTH_ROUTES | {METRICS_ROUTE}
CLIENT_GONE = 499  # nginx's status for it; never sent, only logged
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
#: What browsers' programs set: ours, and what the dialects' own clients send along.
_PREFLIGHT_HEADERS = ", ".join(
    (
        *("Authorization", "Content-Type", "X-Request-Id", TRACEPARENT, *auth.KEY_HEADERS),
        *("Ocp-Apim-Subscription-Region", "X-ClientTraceId"),
    )
)
_EXPOSED_HEADERS = ", ".join(("X-Request-Id", "Retry-After", TRACEPARENT, *rate_headers.NAMES))

logger = log.get_logger("nllbd.access")


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, turn what it raises into an error answer, then log and count it, once."""
    context = request.app[CONTEXT]
    exchange = Exchange(
        request_id=_request_id(request), client=context.clients.find(request), route=route_template(request)
    )
    exchange.dialect = expect(request.path, request.query.keys(), request.headers, request.content_type)
    request[EXCHANGE] = exchange
    in_flight = 0 if exchange.route == METRICS_ROUTE else 1  # an idle server's scrape must read 0
    context.metrics.add(metrics.IN_FLIGHT, in_flight)
    status = CLIENT_GONE
    is_probe = exchange.route in PROBE_ROUTES
    tracing = NO_TRACING if is_probe else context.tracing
    structlog.contextvars.bind_contextvars(request_id=exchange.request_id)  # this task's, which ends with the request
    with context.lifecycle.request(), tracing.request(exchange.route, request.headers) as exchange.span:
        try:
            response = await _answer(request, handler, exchange)
            status = response.status
            return response
        except asyncio.CancelledError:
            exchange.code = "aborted"
            context.metrics.add(metrics.CANCELLED)
            raise
        finally:
            context.metrics.add(metrics.IN_FLIGHT, -in_flight)
            access.tell(request, exchange, status, is_probe=is_probe)


@web.middleware
async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer preflight requests of the origins that may call; `decorate` marks all other answers."""
    is_preflight = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if not is_preflight or allowed_origin(request) is None:
        return await handler(request)
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, DELETE",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _PREFLIGHT_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: "600",
    }
    return web.Response(status=204, headers=headers)


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 unless this daemon serves now; health answers always."""
    if request[EXCHANGE].route not in HEALTH_ROUTES:
        context = request.app[CONTEXT]
        is_owed = is_first_on_connection(request) or context.lifecycle.has_successor
        context.lifecycle.check_admits(is_first_on_connection=is_owed)
        if context.engine.state in (EngineState.FAILED, EngineState.STOPPED):
            raise NotReady("the translation engine is not running", retry_after_s=5.0)
    return await handler(request)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Who sends this, whether they may, and a unit of their rate limit, where the route is not everybody's."""
    if request[EXCHANGE].route not in PUBLIC_ROUTES and request.match_info.http_exception is None:
        await auth.authenticate(request)
    return await handler(request)


MIDDLEWARES = (observe, cors, gate, authenticate)


async def decorate(request: web.Request, response: web.StreamResponse) -> None:
    """Headers that every answer has, streamed ones too (signal `on_response_prepare`)."""
    exchange = request.get(EXCHANGE)
    if exchange is not None:
        response.headers[REQUEST_ID_HEADER] = exchange.request_id
        if exchange.span is not None:
            response.headers[TRACEPARENT] = exchange.span.traceparent
        if exchange.rate is not None:
            rate_headers.add(response.headers, exchange.rate)
    response.headers[hdrs.SERVER] = SERVER
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if request.app[CONTEXT].lifecycle.is_draining:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"  # aiohttp has decided on its own header before it asks us
    origin = allowed_origin(request)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED_HEADERS
    if request.app[CONTEXT].settings.cors_origins:
        # Also where it made no difference: a cache must not give what one origin got to another.
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)


def allowed_origin(request: web.Request) -> str | None:
    """The request's Origin if it is one of `cors_origins` (compared exactly), else None."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return None
    allowed = request.app[CONTEXT].settings.cors_origins
    return origin if origin in allowed or "*" in allowed else None


def route_template(request: web.Request) -> str:
    """The path as it was registered, e.g. `/static/{name}`; never the path that came, which has no bound."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


async def _answer(request: web.Request, handler: Handler, exchange: Exchange) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        typed, headers = as_nllbd_error(error)
        if isinstance(typed, InternalError) and not isinstance(error, NllbdError):
            logger.error("unexpected error", route=exchange.route, **log.describe_exception(error))
        exchange.code = typed.code
        return error_response(typed, exchange.request_id, headers, exchange.dialect)


def _request_id(request: web.Request) -> str:
    """The id that the client or a proxy sent, if it is a sane one, else a new one."""
    sent = request.headers.get(REQUEST_ID_HEADER, "")
    return sent if _REQUEST_ID.fullmatch(sent) else new_request_id()
