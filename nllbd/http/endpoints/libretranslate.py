"""LibreTranslate's endpoints. Its keys come in the body or the query: they are checked once that is read."""

from __future__ import annotations

from aiohttp import web

from nllbd.errors import Forbidden, NotImplementedYet
from nllbd.http import service
from nllbd.http.auth import authenticate_body
from nllbd.http.context import CONTEXT, EXCHANGE, AppContext
from nllbd.http.dialects import libretranslate as dialect
from nllbd.http.endpoints.sent import Sent, answer, read_sent
from nllbd.job import default_params


def routes(context: AppContext) -> list[web.RouteDef]:
    """The routes that are LibreTranslate's alone."""
    return [
        web.get("/frontend/settings", frontend_settings),
        web.post("/suggest", suggest),
        web.post("/translate_file", translate_file),
    ]


async def translate(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`/translate`."""
    context, exchange = request.app[CONTEXT], request[EXCHANGE]
    job = dialect.parse(
        sent.values,
        context.tokenizer.languages,
        context.settings,
        client=exchange.principal.id,
        request_id=exchange.request_id,
        most_alternatives=default_params(context.settings, context.checkpoint).num_beams - 1,
    )
    return answer(dialect.render(await service.translate(request, job), job))


async def detect(request: web.Request, sent: Sent) -> web.StreamResponse:
    """`POST /detect`."""
    context = request.app[CONTEXT]
    text = dialect.detection_text(sent.values, context.settings)
    return answer(dialect.render_detection(await context.translator.detect(text)))


async def frontend_settings(request: web.Request) -> web.StreamResponse:
    """`GET /frontend/settings`."""
    context = request.app[CONTEXT]
    needs_key = not context.guard.lets_anonymous_in
    return answer(dialect.frontend_settings(context.tokenizer.languages, context.settings, needs_key=needs_key))


async def suggest(request: web.Request) -> web.StreamResponse:
    """`POST /suggest`: nothing is collected here, as `/frontend/settings` says."""
    await authenticate_body(request, credentials(await read_sent(request)))
    raise Forbidden(dialect.NO_SUGGESTIONS)


async def translate_file(request: web.Request) -> web.StreamResponse:
    """`POST /translate_file`."""
    await authenticate_body(request, credentials(await read_sent(request)))
    raise NotImplementedYet("files are not translated by this server; send their text to /translate")


def credentials(sent: Sent) -> list[str]:
    """The key in a request's body or query, if there is one. Raises InvalidType for one that is no string."""
    return dialect.credentials(sent.values)
