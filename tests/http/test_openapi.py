"""The OpenAPI document: every route is in it, what it refers to is there, and it is what the code takes."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from nllbd.http import openapi
from nllbd.http.app import build_app
from nllbd.http.operations import OPERATIONS

#: Served, but no part of the API: pages and what they are made of, and the document itself.
NOT_OPERATIONS = {"/", "/static/{name}", "/openapi.json", "/docs", "/docs/", "/docs/{name}"}


def registered(service: Any) -> set[tuple[str, str]]:
    """(method, path) of every route; `*` for one that takes any method. HEAD comes with GET."""
    routes = build_app(service.context).router.routes()
    found = {
        (route.method.lower(), route.resource.canonical) for route in routes if isinstance(route, web.ResourceRoute)
    }
    return {(method, path) for method, path in found if path not in NOT_OPERATIONS and method != "head"}


async def test_every_route_is_documented_and_every_row_is_a_route(service: Any) -> None:
    served = registered(service)
    documented = {(operation.method, operation.path) for operation in OPERATIONS}
    for method, path in served:
        is_in = (method, path) in documented if method != "*" else path in {path for _, path in documented}
        assert is_in, f"{method} {path} is served and not in operations.py"
    for method, path in documented:
        assert {(method, path), ("*", path)} & served, f"{method} {path} is in operations.py and not served"


async def test_it_is_served_as_it_is_generated(service: Any) -> None:
    status, answer, _ = await service.request("GET", "/openapi.json")
    assert (status, answer) == (200, json.loads(json.dumps(openapi.document())))


def test_references_lead_somewhere_and_names_are_plain() -> None:
    document = openapi.document()
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]*)"', json.dumps(document)))
    assert references <= set(schemas)
    assert {"TranslateRequest", "TranslateResponse", "DeeplTranslateRequest", "ErrorBody", "TokenResponse"} <= set(
        schemas
    )
    assert all(name.isalnum() for name in schemas)


def test_what_needs_credentials_says_so() -> None:
    paths = openapi.document()["paths"]
    assert {"bearer": []} in paths["/translate"]["post"]["security"]
    assert {"401", "403", "429"} <= set(paths["/translate"]["post"]["responses"])
    assert "security" not in paths["/health"]["get"]
    assert "401" not in paths["/languages"]["get"]["responses"]
