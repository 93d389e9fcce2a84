"""The endpoints of nllb-serve and nllb-api."""

from __future__ import annotations

from aiohttp import web

from nllbd.http import service
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import nllb as dialect
from nllbd.http.endpoints.sent import Sent, answer, read_sent

_API_PATH = "/api/v4/translator"


def routes(context: AppContext) -> list[web.RouteDef]:
    """nllb-api's routes; nllb-serve has `/translate` alone."""
    return [web.post(_API_PATH, api), web.get(_API_PATH, api, allow_head=False)]


async def serve(request: web.Request, sent: Sent) -> web.StreamResponse:
    """nllb-serve's `/translate`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    job = dialect.parse_serve(
        sent.values,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
    )
    return answer(dialect.render_serve(await service.translate(request, job), job, sent.values))


async def api(request: web.Request) -> web.StreamResponse:
    """nllb-api's `/api/v4/translator`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    sent = await read_sent(request)
    job = dialect.parse_api(
        sent.values,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
    )
    return answer(dialect.render_api(await service.translate(request, job)))
