"""Credentials: found in a request, compared in constant time. One configured key for now; it has scope `translate`."""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import web

from nllbd.errors import InvalidValue, NoCredentials, Unauthorized

_BEARER = "bearer"


def check_credentials(request: web.Request, api_key: str | None) -> None:
    """Raise unless the request may come in.

    Without a configured key everyone may (the daemon refuses to listen beyond loopback then, unless told so).
    Raises Unauthorized for none or a wrong one, InvalidValue for two different ones: which is meant?
    """
    if api_key is None:
        return
    presented = {_digest(credential) for credential in _presented(request)}
    if len(presented) > 1:
        raise InvalidValue("the request carries two different credentials; send one", field="Authorization")
    if not presented:
        raise NoCredentials("no credentials: send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    if not hmac.compare_digest(presented.pop(), _digest(api_key)):
        raise Unauthorized("the key is not valid")


def _presented(request: web.Request) -> list[str]:
    """All credentials in the request's headers."""
    found = [value.strip() for value in request.headers.getall("X-API-Key", [])]
    for value in request.headers.getall("Authorization", []):
        scheme, _, credential = value.strip().partition(" ")
        if scheme.lower() != _BEARER or not credential.strip():
            raise Unauthorized("Authorization must be `Bearer KEY`")
        found.append(credential.strip())
    return found


def _digest(credential: str) -> bytes:
    """Equal lengths for the comparison, and nothing secret in a set."""
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
