"""`/docs`: an API browser (Swagger UI) over `/openapi.json`. Its files come from an installed package and are served by
ourselves; the page loads nothing from elsewhere and talks to nobody else.
"""

from __future__ import annotations

from importlib import resources

from aiohttp import hdrs, web

from nllbd.http import pages

#: Name under `/docs/` → the package's file.
_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nllbd: API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<noscript>This browser needs JavaScript; the document itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
  tryItOutEnabled: true,
});
"""
#: Scripts and styles are files of ours only; the style sheet has pictures in data URLs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def routes() -> list[web.RouteDef]:
    """The page and its files. Reads them now: call it before serving."""
    import swagger_ui  # its import takes a tenth of a second, which only those pay who have the page

    folder = resources.files(swagger_ui) / "static"
    files = {name: pages.make_document((folder / name).read_bytes(), kind, POLICY) for name, kind in _FILES.items()}
    files["start.js"] = pages.make_document(_START, "text/javascript", POLICY)
    page = pages.make_document(_PAGE, "text/html", POLICY)
    return [
        web.get("/docs", pages.serve(page)),
        web.get("/docs/", _without_slash),
        web.get("/docs/{name}", pages.serve_named(files)),
    ]


async def _without_slash(_request: web.Request) -> web.StreamResponse:
    """The page names its files as seen from `/docs`. A relative place: a proxy may serve us below a path of its own."""
    return web.Response(status=308, headers={hdrs.LOCATION: "../docs"})
