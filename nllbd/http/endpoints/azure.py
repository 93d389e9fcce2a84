"""Azure Translator's endpoints, version 3.0."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from nllbd.http import pages, service
from nllbd.http.body import read_json_value
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import azure as dialect
from nllbd.http.endpoints.sent import Sent, all_values, answer
from nllbd.languages import Language


def routes(context: AppContext) -> list[web.RouteDef]:
    """The routes that are Azure's alone."""
    return [web.post("/breaksentence", break_sentence)]


async def translate(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`POST /translate?api-version=3.0&to=…`: every target is a job of its own, all at once."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    parsed = dialect.parse(
        all_values(request),
        sent.body,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
    )
    results = await service.translate_all(request, parsed.jobs)
    return _answer(request, dialect.render(results, parsed))


async def detect(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`POST /detect?api-version=3.0`."""
    context = request.app[CONTEXT]
    dialect.check_version(all_values(request))
    texts = dialect.parse_texts(sent.body, context.settings)
    found = await context.translator.detect_all(texts)
    return _answer(request, dialect.render_detections(found))


async def languages(request: web.Request) -> web.StreamResponse:
    """`GET /languages?api-version=3.0`."""
    content = dialect.render_languages(request.app[CONTEXT].tokenizer.languages, all_values(request))
    response = pages.make_document(msgspec.json.encode(content), "application/json").respond(request)
    response.headers[dialect.REQUEST_ID_HEADER] = request[EXCHANGE].request_id
    return response


async def break_sentence(request: web.Request) -> web.StreamResponse:
    """`POST /breaksentence?api-version=3.0`."""
    context = request.app[CONTEXT]
    query = all_values(request)
    dialect.check_version(query)
    language = dialect.parse_language(query, context.tokenizer.languages)
    body = await read_json_value(request, context.settings.max_body_bytes, context.body_timeout_s)
    texts = dialect.parse_texts(body, context.settings)
    return _answer(request, await _break(context, texts, language))


async def _break(context: AppContext, texts: Sequence[str], language: Language | None) -> list[dialect.BrokenSentences]:
    detected: list[dialect.DetectedLanguage | None] = [None] * len(texts)
    languages = [language] * len(texts) if language is not None else []
    if language is None:
        found = [dialect.detected_language(it) for it in await context.translator.detect_all(texts)]
        languages = [context.tokenizer.languages.resolve(it.language) for it in found]
        detected[:] = found
    pieces = await context.translator.split_all(texts, languages)
    return [
        dialect.BrokenSentences(detected_language=it, sent_len=tuple(len(piece.text) for piece in own))
        for it, own in zip(detected, pieces, strict=True)
    ]


def _answer(request: web.Request, content: object) -> web.Response:
    response = answer(content)
    response.headers[dialect.REQUEST_ID_HEADER] = request[EXCHANGE].request_id
    return response
