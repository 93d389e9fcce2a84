"""The web page and other documents that are made once and served from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

from aiohttp import hdrs, web
from aiohttp.helpers import ETAG_ANY

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
#: The page loads nothing from elsewhere and talks to nobody else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes that do not change while we run."""

    body: bytes
    content_type: str
    etag: str
    policy: str = _POLICY

    def respond(self, request: web.Request) -> web.Response:
        """The document, or 304 for whoever has it already."""
        quoted = f'"{self.etag}"'
        headers = {hdrs.ETAG: quoted, hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": self.policy}
        if any(known.value in (self.etag, ETAG_ANY) for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        charset = None if self.content_type.startswith("image/") else "utf-8"
        return web.Response(body=self.body, content_type=self.content_type, charset=charset, headers=headers)


def make_document(body: bytes, content_type: str, policy: str = _POLICY) -> Document:
    """A document; `policy` is its Content-Security-Policy."""
    return Document(body, content_type, hashlib.sha256(body).hexdigest()[:16], policy)


def load_static() -> dict[str, Document]:
    """All files of `static/` by name."""
    files = (file for file in resources.files("nllbd.http").joinpath("static").iterdir() if file.is_file())
    return {file.name: make_document(file.read_bytes(), _TYPES[file.name.rpartition(".")[2]]) for file in files}


def serve(document: Document) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for one document."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return document.respond(request)

    return handler


def serve_named(documents: dict[str, Document]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for `/static/{name}`."""

    async def handler(request: web.Request) -> web.StreamResponse:
        document = documents.get(request.match_info["name"])
        if document is None:
            raise web.HTTPNotFound
        return document.respond(request)

    return handler
