"""DeepL's glossary endpoints, version 2. A glossary belongs to the account that made it; nobody else sees it."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from nllbd.http import service
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import deepl_glossaries as dialect
from nllbd.http.endpoints.sent import answer, read_sent
from nllbd.store.key_text import new_id

_PATH = "/v2/glossaries"


def routes(context: AppContext) -> list[web.RouteDef]:
    """The glossary routes."""
    return [
        web.get("/v2/glossary-language-pairs", pairs),
        web.get(_PATH, list_all),
        web.post(_PATH, create),
        web.get(f"{_PATH}/{{id}}", show),
        web.delete(f"{_PATH}/{{id}}", delete),
        web.get(f"{_PATH}/{{id}}/entries", entries),
    ]


async def pairs(request: web.Request) -> web.StreamResponse:
    """`GET /v2/glossary-language-pairs`."""
    return answer(dialect.render_pairs(request.app[CONTEXT].tokenizer.languages))


async def list_all(request: web.Request) -> web.StreamResponse:
    """`GET /v2/glossaries`."""
    found = await request.app[CONTEXT].glossaries.list(_account(request))
    return answer(dialect.GlossaryList(glossaries=tuple(map(dialect.render, found))))


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /v2/glossaries`."""
    context = request.app[CONTEXT]
    values = (await read_sent(request)).values
    record = dialect.parse(
        values,
        context.tokenizer.languages,
        glossary_id=new_id(),
        account=_account(request),
        now=datetime.now(UTC),
    )
    await context.glossaries.add(record)
    return answer(dialect.render(record), 201)


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /v2/glossaries/{id}`."""
    found = await request.app[CONTEXT].glossaries.find(_account(request), request.match_info["id"])
    return answer(dialect.render(found.record))


async def entries(request: web.Request) -> web.StreamResponse:
    """`GET /v2/glossaries/{id}/entries`."""
    found = await request.app[CONTEXT].glossaries.find(_account(request), request.match_info["id"])
    return web.Response(text=dialect.render_entries(found.record), content_type=dialect.TSV_TYPE)


async def delete(request: web.Request) -> web.StreamResponse:
    """`DELETE /v2/glossaries/{id}`."""
    await request.app[CONTEXT].glossaries.delete(_account(request), request.match_info["id"])
    return web.Response(status=204)


def _account(request: web.Request) -> str:
    return service.account_of(request[EXCHANGE].principal)
