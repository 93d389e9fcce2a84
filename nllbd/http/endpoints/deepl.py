"""DeepL's endpoints, version 2."""

from __future__ import annotations

import msgspec
from aiohttp import web

from nllbd.http import service
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import deepl as dialect
from nllbd.http.dialects.common import as_text
from nllbd.http.dialects.deepl_glossaries import check_pair
from nllbd.http.endpoints.sent import answer, read_sent


def routes(context: AppContext) -> list[web.RouteDef]:
    """DeepL's routes."""
    return [
        web.post("/v2/translate", translate),
        web.get("/v2/languages", languages),
        web.post("/v2/languages", languages),
        web.get("/v2/usage", usage),
        web.post("/v2/usage", usage),
    ]


async def translate(request: web.Request) -> web.StreamResponse:
    """`POST /v2/translate`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    sent = await read_sent(request)
    job = dialect.parse(
        sent.values,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
    )
    if (glossary_id := sent.values.get("glossary_id")) is not None:
        found = await context.glossaries.find(
            service.account_of(exchange.principal), as_text(glossary_id, "glossary_id")
        )
        check_pair(found.record, job.source_lang, job.target_lang)
        job = msgspec.structs.replace(job, glossary=found.terms)
    return answer(dialect.render(await service.translate(request, job), job))


async def languages(request: web.Request) -> web.StreamResponse:
    """`/v2/languages`: `type` in the query, or in a form, which the client sends with GET."""
    sent = await read_sent(request)
    kind = as_text(sent.values.get("type") or "source", "type")
    return answer(dialect.render_languages(request.app[CONTEXT].tokenizer.languages, kind))


async def usage(request: web.Request) -> web.StreamResponse:
    """`/v2/usage`: what the sender has used this month, and may use."""
    principal = request[EXCHANGE].principal
    used = request.app[CONTEXT].accounts.usage.used_this_month(service.account_of(principal))
    return answer(dialect.render_usage(used, principal.monthly_characters))
