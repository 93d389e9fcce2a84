"""What is told of a request when it is over: one line in the log, its figures, its span, its account's load. No text.

The line's fields: queue, encode and decode are those of the slowest segment, in milliseconds; `lanes` is the most lanes
that the engine's batch had meanwhile, all requests' together; `beams` what each segment of this one took.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from nllbd import log, metrics
from nllbd.http.context import CONTEXT, AppContext, Exchange
from nllbd.job import Usage

#: Errors that cost no work: counted as rejections, too.
REJECTIONS = frozenset(
    {"overloaded", "not_ready", "draining", "unauthorized", "forbidden", "rate_limited", "quota_exceeded"}
    | {"text_too_long", "too_many_texts", "body_too_large"}
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

access = log.FrequentLogger("nllbd.access")


def tell(request: web.Request, exchange: Exchange, status: int, *, is_probe: bool) -> None:
    """Tell of a request that was answered with `status`. `is_probe`: somebody asked for our health, and often does."""
    context = request.app[CONTEXT]
    _count(context, request, exchange, status, is_probe)
    fields = _fields(request, exchange, status)
    if exchange.span is not None:
        exchange.span.finish({f"nllbd.{name}": value for name, value in fields.items()}, failed=status >= 500)
        fields["trace_id"] = exchange.span.trace_id
    level = access.debug if is_probe and status == 200 else access.info
    level("request", **fields)


def _count(context: AppContext, request: web.Request, exchange: Exchange, status: int, is_probe: bool) -> None:
    method = request.method if request.method in _METHODS else "other"
    is_rejected = exchange.code in REJECTIONS
    context.metrics.add(metrics.HTTP_REQUESTS, method=method, route=exchange.route, status=str(status))
    context.metrics.observe(metrics.REQUEST_DURATION, exchange.duration_s, route=exchange.route)
    if not is_probe:  # a health check that fails is no request that failed
        if exchange.code != "ok":
            context.metrics.add(metrics.ERRORS, code=exchange.code)
        if is_rejected:
            context.metrics.add(metrics.REJECTED, reason=exchange.code)
        characters = exchange.usage.characters if exchange.usage else 0
        context.busiest.record(exchange.principal.id, characters, is_rejected)


def _fields(request: web.Request, exchange: Exchange, status: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "method": request.method[:16],
        "route": exchange.route,
        "status": status,
        "code": exchange.code,
        "duration_ms": round(exchange.duration_s * 1000, 2),
        "client": exchange.client,
        "account": exchange.principal.id,
        "dialect": exchange.dialect.value,
    }
    return fields | _cost(exchange.usage) if exchange.usage else fields


def _cost(usage: Usage) -> dict[str, Any]:
    return {
        "characters": usage.characters,
        "segments": usage.segments,
        "cached_segments": usage.cached_segments,
        "source_tokens": usage.source_tokens,
        "target_tokens": usage.target_tokens,
        "beams": usage.beams,
        "lanes": usage.peak_lanes,
        "queue_ms": round(usage.queue_s * 1000, 2),
        "encode_ms": round(usage.encode_s * 1000, 2),
        "decode_ms": round(usage.decode_s * 1000, 2),
    }
