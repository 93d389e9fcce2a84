"""Google's endpoints, Cloud Translation API version 2."""

from __future__ import annotations

from aiohttp import web

from nllbd.http import service
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import google as dialect
from nllbd.http.endpoints.sent import answer, read_sent

_PATH = "/language/translate/v2"


def routes(context: AppContext) -> list[web.RouteDef]:
    """Google's routes. Each takes JSON, a form, or its parameters in the query."""
    handlers = ((_PATH, translate), (f"{_PATH}/detect", detect), (f"{_PATH}/languages", languages))
    return [
        route
        for path, handler in handlers
        for route in (web.post(path, handler), web.get(path, handler, allow_head=False))
    ]


async def translate(request: web.Request) -> web.StreamResponse:
    """`/language/translate/v2`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    values = (await read_sent(request)).values
    job = dialect.parse(
        values,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
    )
    return answer(dialect.render(await service.translate(request, job), job, values.get("model")))


async def detect(request: web.Request) -> web.StreamResponse:
    """`/language/translate/v2/detect`."""
    context = request.app[CONTEXT]
    texts = dialect.parse_texts((await read_sent(request)).values, context.settings)
    found = await context.translator.detect_all(texts.items)
    return answer(dialect.render_detections(found))


async def languages(request: web.Request) -> web.StreamResponse:
    """`/language/translate/v2/languages`."""
    values = (await read_sent(request)).values
    served = request.app[CONTEXT].tokenizer.languages
    return answer(dialect.render_languages(served, with_names=bool(values.get("target"))))
