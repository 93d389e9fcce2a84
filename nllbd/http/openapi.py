"""The OpenAPI document, generated from schema.py: what the code parses is what the document says."""

from __future__ import annotations

from typing import Any

import msgspec

from nllbd import __version__
from nllbd.http import schema
from nllbd.http.errors import ErrorBody

_REF = "#/components/schemas/{name}"
_SCHEMAS: tuple[type[msgspec.Struct], ...] = (
    schema.TranslateRequest,
    schema.TranslateResponse,
    schema.SegmentItem,
    schema.StreamEnd,
    schema.DetectRequest,
    schema.DetectResponse,
    schema.LanguageItem,
    schema.HealthResponse,
    schema.VersionResponse,
    ErrorBody,
)


def document() -> dict[str, Any]:
    """The API of the main port as an OpenAPI 3.1 document."""
    _, components = msgspec.json.schema_components(_SCHEMAS, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nllbd",
            "version": __version__,
            "description": "Translation between the languages of an NLLB-200 model.",
        },
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    secured: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"key": []}]
    translate = _operation(
        "Translate one text or several",
        schema.TranslateResponse,
        (400, 401, 408, 413, 415, 422, 429, 500, 503, 504),
        body=schema.TranslateRequest,
    )
    translate["security"] = secured
    translate["responses"]["200"]["content"]["text/event-stream"] = {
        "schema": {"type": "string", "description": "Events `segment` (SegmentItem), then `done` (StreamEnd)."}
    }
    detect = _operation(
        "Detect the language of texts", schema.DetectResponse, (400, 401, 408, 413, 415), body=schema.DetectRequest
    )
    detect["security"] = secured
    languages = _operation("Languages of the model", None, (503,))
    languages["responses"]["200"] = _answer({"type": "array", "items": _ref(schema.LanguageItem)})
    return {
        "/translate": {"post": translate},
        "/detect": {"post": detect},
        "/languages": {"get": languages},
        "/version": {"get": _operation("What runs here", schema.VersionResponse, (503,))},
        "/health": {"get": _health()},
        "/livez": {"get": _operation("The process answers", None, ())},
        "/readyz": {"get": _operation("Translations are accepted now", None, (503,))},
    }


def _health() -> dict[str, Any]:
    operation = _operation("Condition of the daemon", schema.HealthResponse, ())
    operation["responses"]["503"] = _answer(_ref(schema.HealthResponse), "Not ready, draining or failed")
    return operation


def _operation(
    summary: str,
    answer: type[msgspec.Struct] | None,
    errors: tuple[int, ...],
    body: type[msgspec.Struct] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _answer(_ref(answer) if answer else {"type": "object"})},
    }
    operation["responses"] |= {str(status): _answer(_ref(ErrorBody), "Error") for status in errors}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _answer(content: dict[str, Any], description: str = "Success") -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": content}}}


def _ref(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=struct.__name__)}
