"""`/translate`, `/detect` and `/languages`, which several dialects share: recognise which one, hand over to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import hdrs, web

from nllbd.errors import InvalidType, UnsupportedMediaType
from nllbd.http import pages
from nllbd.http.auth import authenticate_body
from nllbd.http.context import EXCHANGE, AppContext
from nllbd.http.dialects import native
from nllbd.http.dispatch import Dialect, recognise, recognise_detection
from nllbd.http.endpoints import azure, libretranslate, nllb
from nllbd.http.endpoints import native as native_endpoints
from nllbd.http.endpoints.sent import Sent, read_sent

_Answer = Callable[[web.Request, Sent], Awaitable[web.StreamResponse]]


def routes(context: AppContext) -> list[web.RouteDef]:
    """The shared routes."""
    languages = msgspec.json.encode(native.render_languages(context.tokenizer.languages))
    return [
        web.post("/translate", translate),
        web.get("/translate", translate, allow_head=False),
        web.post("/detect", detect),
        web.get("/languages", _languages(pages.make_document(languages, "application/json"))),
    ]


async def translate(request: web.Request) -> web.StreamResponse:
    """`POST /translate`; `GET` for the dialects whose texts may stand in the query."""
    exchange = request[EXCHANGE]
    if request.method == hdrs.METH_GET and recognise(request.query.keys(), ()) not in _IN_QUERY:
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])
    sent = await read_sent(request)
    otherwise = _unmarked(exchange.dialect, sent)
    exchange.dialect = Dialect.NATIVE  # a mixture is told of in our own words
    exchange.dialect = recognise(request.query.keys(), sent.names, otherwise)
    await _authenticate(request, sent)
    return await _TRANSLATE[exchange.dialect](request, sent)


async def detect(request: web.Request) -> web.StreamResponse:
    """`POST /detect`."""
    exchange = request[EXCHANGE]
    sent = await read_sent(request)
    otherwise = _unmarked(exchange.dialect, sent)
    exchange.dialect = Dialect.NATIVE
    exchange.dialect = recognise_detection(request.query.keys(), sent.names, otherwise)
    await _authenticate(request, sent)
    return await _DETECT[exchange.dialect](request, sent)


def _unmarked(expected: Dialect, sent: Sent) -> Dialect:
    """Whose a request is that bears nobody's marks: an array with Azure's headers lacks but its version."""
    if expected is Dialect.AZURE and isinstance(sent.body, list):
        return Dialect.AZURE
    return Dialect.LIBRETRANSLATE if sent.is_form else Dialect.NATIVE


async def _authenticate(request: web.Request, sent: Sent) -> None:
    """Whose request it is, where only the body tells; and whether its dialect takes bodies of this type."""
    dialect = request[EXCHANGE].dialect
    is_libretranslate = dialect is Dialect.LIBRETRANSLATE
    await authenticate_body(request, libretranslate.credentials(sent) if is_libretranslate else ())
    if sent.is_form and dialect in (Dialect.NATIVE, Dialect.AZURE):
        raise UnsupportedMediaType("Content-Type must be application/json for this form of request")
    if isinstance(sent.body, list) and dialect is Dialect.NATIVE:
        raise InvalidType('expected a JSON object such as {"text": …}; an array needs `?api-version=3.0` (Azure)')


def _languages(everybodys: pages.Document) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        """`GET /languages`: LibreTranslate's list, unless Azure's is asked for."""
        if request[EXCHANGE].dialect is Dialect.AZURE:
            return await azure.languages(request)
        return everybodys.respond(request)

    return handler


#: Dialects whose requests for translation may come as GET.
_IN_QUERY = frozenset({Dialect.LIBRETRANSLATE, Dialect.NLLB_SERVE})
_TRANSLATE: Mapping[Dialect, _Answer] = {
    Dialect.NATIVE: native_endpoints.translate,
    Dialect.LIBRETRANSLATE: libretranslate.translate,
    Dialect.AZURE: azure.translate,
    Dialect.NLLB_SERVE: nllb.serve,
}
_DETECT: Mapping[Dialect, _Answer] = {
    Dialect.NATIVE: native_endpoints.detect,
    Dialect.LIBRETRANSLATE: libretranslate.detect,
    Dialect.AZURE: azure.detect,
}
