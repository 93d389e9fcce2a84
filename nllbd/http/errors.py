"""Errors as HTTP answers: the JSON error object, its status and its headers, for every way in which a request fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from nllbd.errors import (
    BodyTooLarge,
    InternalError,
    InvalidValue,
    MethodNotAllowed,
    NllbdError,
    NotFound,
    Unauthorized,
)
from nllbd.http.dialects import azure, deepl, google, libretranslate, nllb
from nllbd.http.dialects.common import ErrorAnswer
from nllbd.http.dispatch import Dialect

REQUEST_ID_HEADER = "X-Request-Id"
SERVER = "nllbd"  # no version, of ours or of what we run on
RETRYABLE_HEADER = "X-Nllbd-Retryable"


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. `field` names the part of the request at fault, e.g. `text[3]`."""

    code: str
    message: str
    field: str | None = None
    request_id: str


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer that is not a success."""

    error: ErrorObject


def error_body(error: NllbdError, request_id: str) -> bytes:
    """The error object as JSON."""
    return msgspec.json.encode(_native(error, request_id).content)


def error_response(
    error: NllbdError,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    dialect: Dialect = Dialect.NATIVE,
) -> web.Response:
    """The answer to a failed request, as its dialect tells it.

    408 and 413 close the connection: the rest of the body was not read.
    """
    answer = _RENDERERS.get(dialect, _native)(error, request_id)
    always = {REQUEST_ID_HEADER: request_id, "Server": SERVER}
    usual = error_headers(error, answer.status)
    if answer.is_final:
        usual.pop("Retry-After", None)
    response = web.Response(
        status=answer.status,
        body=msgspec.json.encode(answer.content),
        content_type="application/json",
        headers={**usual, **(headers or {}), **answer.headers, **always},
    )
    if error.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        response.force_close()
    return response


def error_headers(error: NllbdError, status: int | None = None) -> dict[str, str]:
    """The headers that an error brings along; `status` is the one it is told with, if not its own."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.retryable:
        headers[RETRYABLE_HEADER] = "1"
    if isinstance(error, Unauthorized) and status in (None, HTTPStatus.UNAUTHORIZED):
        headers["WWW-Authenticate"] = 'Bearer realm="nllbd"'
    return headers


def as_nllbd_error(error: Exception) -> tuple[NllbdError, dict[str, str]]:
    """The typed error for any exception, and headers to keep. An unknown one becomes InternalError, saying nothing."""
    if isinstance(error, NllbdError):
        return error, {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{error.method[:20]} is not possible here; use {allowed}"
        return MethodNotAllowed(message), {"Allow": allowed}
    if isinstance(error, web.HTTPNotFound):
        return NotFound("there is nothing at this path"), {}
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLarge("the body is larger than this server accepts"), {}
    if isinstance(error, web.HTTPException):
        return _with_status(error.status, error.reason), {}
    if isinstance(error, web.RequestPayloadError | HttpProcessingError):
        return InvalidValue("the body does not hold to its transfer or content encoding"), {}
    return InternalError("an unexpected error; give the request id when you report it"), {}


def _with_status(status: int, reason: str) -> NllbdError:
    """An error of aiohttp's own with its status, as ours."""
    error = InvalidValue(reason) if 400 <= status < 500 else InternalError(reason)
    error.status = status  # type: ignore[misc]  # an instance attribute over the class's
    return error


def _native(error: NllbdError, request_id: str) -> ErrorAnswer:
    about = ErrorObject(code=error.code, message=error.message, field=error.field, request_id=request_id)
    return ErrorAnswer(error.status, ErrorBody(error=about))


_RENDERERS: Mapping[Dialect, Callable[[NllbdError, str], ErrorAnswer]] = {
    Dialect.LIBRETRANSLATE: libretranslate.render_error,
    Dialect.DEEPL: deepl.render_error,
    Dialect.GOOGLE: google.render_error,
    Dialect.AZURE: azure.render_error,
    Dialect.NLLB_API: nllb.render_api_error,
}
