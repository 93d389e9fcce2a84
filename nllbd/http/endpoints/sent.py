"""What a client sent, whichever way: JSON, a form, or names in the query. Knows no dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.helpers import parse_mimetype

from nllbd.errors import UnsupportedMediaType
from nllbd.http import forms
from nllbd.http.body import as_object, read_body, read_json_value
from nllbd.http.context import CONTEXT
from nllbd.http.dispatch import FORM_TYPES


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's content. `body`: the decoded JSON, or a form's fields; `query`: the fields of the query.

    A name that came several times has a list of values.
    """

    body: Any
    is_form: bool
    query: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """The body's fields, and the query's where the body has none of that name. Raises InvalidType if it is no
        JSON object.
        """
        return {**self.query, **as_object(self.body)}

    @property
    def names(self) -> frozenset[str]:
        """The names of the body's fields; none if it has no names."""
        return frozenset(self.body) if isinstance(self.body, dict) else frozenset()


async def read_sent(request: web.Request) -> Sent:
    """The content of a request. Without a body and a type it is what the query says.

    Raises UnsupportedMediaType, BodyTooLarge, BodyTimeout, InvalidJson, InvalidValue.
    """
    context = request.app[CONTEXT]
    limits = (context.settings.max_body_bytes, context.body_timeout_s)
    query = forms.fields(request.query.items())
    if request.content_type in FORM_TYPES and hdrs.CONTENT_TYPE in request.headers:
        return Sent(_form(request, await read_body(request, *limits)), is_form=True, query=query)
    if not request.body_exists and (query or request.method == hdrs.METH_GET):
        return Sent({}, is_form=True, query=query)
    return Sent(await read_json_value(request, *limits), is_form=False, query=query)


def all_values(request: web.Request) -> dict[str, list[str]]:
    """The query as lists of values by name."""
    return {name: request.query.getall(name) for name in request.query}


def answer(content: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")


def _form(request: web.Request, body: bytes) -> dict[str, Any]:
    if request.content_type == "multipart/form-data":
        boundary = parse_mimetype(request.headers[hdrs.CONTENT_TYPE]).parameters.get("boundary", "")
        return forms.fields(forms.text_pairs(forms.parse_multipart(body, boundary)))
    if body.lstrip()[:1] in (b"{", b"["):  # what curl -d says of any body, unless told
        raise UnsupportedMediaType("the body is JSON: say so with `Content-Type: application/json`")
    return forms.fields(forms.parse_urlencoded(body))
