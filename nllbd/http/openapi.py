"""The OpenAPI document, generated from the operations and the structures that parse and render them: what the code
takes is what the document says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from nllbd import __version__
from nllbd.http import schema
from nllbd.http.auth import KEY_HEADERS
from nllbd.http.errors import ErrorBody
from nllbd.http.operations import EVENTS, NATIVE, OPERATIONS, Operation, Parameter

_REF = "#/components/schemas/{name}"
#: Structures that no operation's JSON has: those of events, and of errors.
_BESIDES = (schema.SegmentItem, schema.StreamEnd, ErrorBody)
_EVENT = {
    "type": "object",
    "properties": {"event": {"enum": ["segment", "done", "error"]}, "data": {"type": "string"}},
    "description": "`data` is JSON: SegmentItem, StreamEnd or ErrorBody.",
}
_REASONS = {456: "Quota exceeded"}
#: One error object has one form; other dialects and shared paths have theirs.
_ANYTHING: dict[str, Any] = {}


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """The API of the main port as an OpenAPI 3.1 document."""
    schemas, components = _schemas(operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nllbd",
            "version": __version__,
            "description": "Translation between the languages of an NLLB-200 model. Rate limits are told in "
            "`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11) and `X-RateLimit-*`.",
        },
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in operations)],
        "paths": _paths(operations, schemas),
        "components": {"schemas": components, "securitySchemes": _security_schemes()},
    }


_Schemas = dict[Any, dict[str, Any]]


def _schemas(operations: Iterable[Operation]) -> tuple[_Schemas, dict[str, Any]]:
    """(schema of each type, the named parts that they refer to)."""
    bodies = (body for operation in operations for body in operation.bodies)
    answers = (operation.answer for operation in operations if operation.answer is not None)
    types = list(dict.fromkeys([*bodies, *answers, *_BESIDES]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    readable = [_with_readable_names(found) for found in schemas]
    named = {_readable(name): _with_readable_names(found) for name, found in components.items()}
    return dict(zip(types, readable, strict=True)), named


def _with_readable_names(found: Any) -> Any:
    """A schema whose references are by readable names."""
    if isinstance(found, dict):
        return {key: _reference(it) if key == "$ref" else _with_readable_names(it) for key, it in found.items()}
    return [_with_readable_names(item) for item in found] if isinstance(found, list) else found


def _reference(reference: str) -> str:
    prefix, _, name = reference.rpartition("/")
    return f"{prefix}/{_readable(name)}"


def _readable(name: str) -> str:
    """Structures of one name come with their modules': `…dialects.deepl.TranslateRequest` → DeeplTranslateRequest."""
    *modules, own = name.split(".")
    return f"{modules[-1].capitalize()}{own}" if "dialects" in modules else own


def _paths(operations: Iterable[Operation], schemas: _Schemas) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    return paths


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    error = schemas[ErrorBody]
    if _is_shared(operation):
        error = _or_anything(error) if operation.tag == NATIVE else _ANYTHING
    made: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {str(operation.status): _success(operation, schemas)}
        | {str(status): _answer(_reason(status), error) for status in operation.all_errors},
    }
    if operation.help:
        made["description"] = operation.help
    if operation.path == "/health":
        made["responses"]["503"] = _success(operation, schemas) | {"description": "Not ready, draining or failed"}
    if operation.parameters:
        made["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.bodies:
        body = {"schema": _any_of(operation.bodies, schemas)}
        if operation.example is not None:
            body["example"] = operation.example
        content = dict.fromkeys(operation.body_types, body)
        made["requestBody"] = {"required": operation.is_body_required, "content": content}
    if not operation.is_public:
        made["security"] = [{}, *({name: []} for name in _security_schemes())]
    return made


def _is_shared(operation: Operation) -> bool:
    """Whether errors may have another form than ours."""
    return operation.tag != NATIVE or operation.path in ("/translate", "/detect")


def _success(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    if operation.status == HTTPStatus.NO_CONTENT:
        return {"description": "Done"}
    known = schemas.get(operation.answer) if operation.answer is not None else None
    # Where several dialects share a path, ours is what is described, and what others get is none of it.
    described = known or _ANYTHING
    if known is not None and _is_shared(operation):
        described = _or_anything(known)
    success = _answer("Success", described)
    if EVENTS in operation.answer_types:
        success["content"][EVENTS] = {"schema": _EVENT}
    return success


def _or_anything(ours: dict[str, Any]) -> dict[str, Any]:
    """Ours, or another dialect's."""
    return {"anyOf": [ours, _ANYTHING]}


def _any_of(types: Sequence[Any], schemas: _Schemas) -> dict[str, Any]:
    return schemas[types[0]] if len(types) == 1 else {"anyOf": [schemas[kind] for kind in types]}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.help,
        "schema": {"type": "string"},
    }


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": content}}}


def _reason(status: int) -> str:
    return _REASONS.get(status) or HTTPStatus(status).phrase


def _security_schemes() -> dict[str, Any]:
    headers = {name: {"type": "apiKey", "in": "header", "name": name} for name in KEY_HEADERS}
    return {"bearer": {"type": "http", "scheme": "bearer"}, **headers}
