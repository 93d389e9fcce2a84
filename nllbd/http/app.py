"""Puts the two applications together: the API on the main port, `/metrics` on its own.

Serve them with `server.make_runner`: it switches on cancellation when a client goes away, and JSON for malformed HTTP.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from nllbd.http import debug, docs, handlers, openapi, pages, sessions
from nllbd.http.context import CONTEXT, AppContext
from nllbd.http.endpoints import azure, deepl, deepl_glossaries, google, libretranslate, nllb, shared
from nllbd.http.middleware import MIDDLEWARES, decorate, observe


def build_app(context: AppContext) -> web.Application:
    """The API."""
    app = _bare_app(context, MIDDLEWARES)
    for dialect in (shared, libretranslate, deepl, deepl_glossaries, google, azure, nllb):
        app.add_routes(dialect.routes(context))
    app.add_routes(
        [
            web.get("/version", handlers.version),
            web.get("/health", handlers.health),
            web.get("/livez", handlers.livez),
            web.get("/readyz", handlers.readyz),
            web.get(debug.ROUTE, debug.show_engine),
            *sessions.routes(),
        ]
    )
    if context.settings.enable_swagger:
        document = pages.make_document(msgspec.json.encode(openapi.document()), "application/json")
        app.router.add_get("/openapi.json", pages.serve(document))
        app.add_routes(docs.routes())
    if context.settings.enable_web:
        static = pages.load_static()
        app.router.add_get("/", pages.serve(static["index.html"]))
        app.router.add_get("/static/{name}", pages.serve_named(static))
    return app


def build_metrics_app(context: AppContext) -> web.Application:
    """`/metrics` and nothing else: no credentials, no gate, for it listens where only operators reach it."""
    app = _bare_app(context, (observe,))
    app.router.add_get("/metrics", handlers.show_metrics)
    return app


def _bare_app(context: AppContext, middlewares: tuple[object, ...]) -> web.Application:
    # 0 = unlimited: body.py has the limit, with our own error.
    app = web.Application(middlewares=middlewares, client_max_size=0)  # type: ignore[arg-type]
    app[CONTEXT] = context
    app.on_response_prepare.append(decorate)
    return app
