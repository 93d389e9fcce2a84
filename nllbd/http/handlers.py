"""What is asked of the daemon itself: its health, its version, its metrics. Translation is in `endpoints/`."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web

from nllbd import __version__
from nllbd.bridge.protocol import EngineState
from nllbd.errors import Draining, NotReady, StoreUnavailable
from nllbd.http import schema
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.errors import error_headers
from nllbd.lifecycle import LifecycleState


async def livez(_request: web.Request) -> web.StreamResponse:
    """`GET /livez`: the process answers. Nothing else."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.StreamResponse:
    """`GET /readyz`: 200 while a translation would be accepted and worked on now."""
    context = request.app[CONTEXT]
    context.lifecycle.check_admits()
    if context.engine.state is not EngineState.READY:
        raise NotReady(f"the translation engine is {context.engine.state.value}", retry_after_s=1.0)
    context.guard.check_serves()
    return web.json_response({"status": "ready"})


async def health(request: web.Request) -> web.StreamResponse:
    """`GET /health`: the same for people and for load balancers that read bodies."""
    context = request.app[CONTEXT]
    status, message = health_status(context)
    body = schema.HealthResponse(
        status=status,
        engine=context.engine.state.value,
        model=context.checkpoint.name,
        version=__version__,
        uptime_s=round(context.lifecycle.uptime_s, 1),
        message=message,
        store=store_status(context),
    )
    if status == "ok":
        return _json(body)
    response = _json(body, HTTPStatus.SERVICE_UNAVAILABLE)
    error = Draining("") if status == "draining" else NotReady("", retry_after_s=1.0)
    request[EXCHANGE].code = error.code
    response.headers.update(error_headers(error))
    return response


def health_status(context: AppContext) -> tuple[schema.HealthStatus, str | None]:
    """The daemon's condition in one word, and why if there is a why."""
    if context.lifecycle.is_draining:
        return "draining", None
    if context.lifecycle.failed_reason is not None:
        return "failed", context.lifecycle.failed_reason
    if context.engine.state in (EngineState.FAILED, EngineState.STOPPED):
        return "failed", "the translation engine is not running"
    if context.lifecycle.state is not LifecycleState.READY or context.engine.state is not EngineState.READY:
        return "loading", None
    try:
        context.guard.check_serves()
    except StoreUnavailable as error:
        return "failed", error.message
    return "ok", None


def store_status(context: AppContext) -> schema.StoreStatus | None:
    """Whether the store of keys answers; None where there is none."""
    accounts = context.accounts
    if not accounts.has_store:
        return None
    if accounts.keys.is_current:
        return "ok"
    return "stale" if accounts.keys.is_known else "unreadable"


async def version(request: web.Request) -> web.StreamResponse:
    """`GET /version`."""
    context = request.app[CONTEXT]
    info = context.engine.info
    return _json(
        schema.VersionResponse(
            name="nllbd",
            version=__version__,
            model=context.checkpoint.name,
            fingerprint=context.checkpoint.fingerprint,
            device=info.device if info else None,
            dtype=info.dtype if info else None,
            max_request_size=context.settings.max_request_size,
        )
    )


async def show_metrics(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`, on the metrics port."""
    metrics = request.app[CONTEXT].metrics
    body, content_type = await asyncio.to_thread(metrics.render, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def _json(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
