"""Every error there is, as every dialect tells it: the right class of status, JSON, and nothing lost."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec
import pytest

from nllbd import errors
from nllbd.http.dispatch import Dialect
from nllbd.http.errors import error_response

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.NllbdError) and kind not in (errors.ConfigError, errors.CheckpointError)
]
#: Statuses that a dialect has of its own.
OWN = {
    (Dialect.DEEPL, "quota_exceeded"): 456,
    (Dialect.DEEPL, "unauthorized"): 403,
    (Dialect.LIBRETRANSLATE, "unauthorized"): 403,
    (Dialect.AZURE, "quota_exceeded"): 403,
}


def told(error: errors.NllbdError, dialect: Dialect) -> tuple[Any, dict[str, Any]]:
    response = error_response(error, "id-1", dialect=dialect)
    return response, json.loads(response.body)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_in_every_dialect(kind: type[errors.NllbdError], dialect: Dialect) -> None:
    error = kind("what was wrong", field="text[3]", retry_after_s=2.2)
    response, content = told(error, dialect)
    assert response.status == OWN.get((dialect, error.code), response.status)
    assert response.status // 100 == error.status // 100
    if error.status >= 500 or error.status == 429:
        assert response.status in (error.status, OWN.get((dialect, error.code)))
    is_final = (dialect, error.code) == (Dialect.AZURE, "quota_exceeded")
    assert response.headers.get("Retry-After") == (None if is_final else "3")
    assert response.headers["X-Request-Id"] == "id-1"
    if kind not in (errors.Unauthorized, errors.NoCredentials):
        assert "what was wrong" in json.dumps(content)
    assert ("WWW-Authenticate" in response.headers) == (response.status == 401)


def test_the_forms() -> None:
    error = errors.RateLimited("slowly", retry_after_s=1)
    assert told(error, Dialect.LIBRETRANSLATE)[1] == {"error": "Slowdown: slowly"}
    assert told(error, Dialect.DEEPL)[1] == {"message": "Too many requests", "detail": "slowly"}
    assert told(error, Dialect.GOOGLE)[1]["error"]["status"] == "RESOURCE_EXHAUSTED"
    response, content = told(error, Dialect.AZURE)
    assert (content["error"]["code"], response.headers["X-RequestId"]) == (429000, "id-1")
    assert told(error, Dialect.NLLB_API)[1] == {"status_code": 429, "detail": "slowly"}
    assert told(error, Dialect.NATIVE)[1]["error"]["code"] == "rate_limited"


def test_azure_s_codes_have_six_digits() -> None:
    for kind in ERRORS:
        for field in (None, "to", "from", "api-version", "Text[0]"):
            code = told(kind("x", field=field), Dialect.AZURE)[1]["error"]["code"]
            assert 400_000 <= code <= 599_999


def test_what_is_told_is_no_more_than_the_error() -> None:
    for dialect in Dialect:
        body = msgspec.json.encode(told(errors.InternalError("an unexpected error"), dialect)[1])
        assert b"Traceback" not in body
        assert len(body) < 400
