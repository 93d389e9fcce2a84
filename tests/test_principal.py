"""Who shares cached translations with whom."""

from __future__ import annotations

import pytest

from nllbd.principal import Principal, anonymous, cache_tenant

STORED = Principal(id="key:abc", key_id="abc")
SESSION = Principal(id="key:abc", key_id="abc", session_id="s")
TOKEN = Principal(id="jwt:issuer:ada")
CONFIGURED = Principal(id="api_key")
NOBODY = anonymous("192.0.2.1")


@pytest.mark.parametrize(
    ("scope", "principal", "tenant"),
    [
        (None, STORED, "key:abc"),
        (None, SESSION, "key:abc"),
        (None, TOKEN, "jwt:issuer:ada"),
        (None, CONFIGURED, ""),
        (None, NOBODY, ""),
        ("key", STORED, "key:abc"),
        ("key", CONFIGURED, "api_key"),
        ("key", NOBODY, "address:192.0.2.1"),
        ("shared", STORED, ""),
        ("shared", TOKEN, ""),
    ],
)
def test_cache_tenant(scope: str | None, principal: Principal, tenant: str) -> None:
    assert cache_tenant(principal, scope) == tenant
