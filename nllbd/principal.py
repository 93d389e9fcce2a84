"""Who sends a request, and what they may do: the value that authentication makes and everybody else reads.

Knows no HTTP, no database and no credentials.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nllbd.sched.sequence import Priority


class Scope(enum.StrEnum):
    """What a credential is good for."""

    TRANSLATE = "translate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    `id` is unique among all senders: `key:<id of a stored key>`, `api_key` (the configured one),
    `jwt:<issuer>:<subject>` or `address:<client address>` for an anonymous one. It is the scheduler's client, the name
    of the rate bucket, the account that usage is booked on and, where the cache is scoped so, whose cached
    translations are seen. None in a limit means: the server's own.
    """

    id: str
    name: str = ""
    scopes: frozenset[Scope] = frozenset({Scope.TRANSLATE})
    key_id: str | None = None
    session_id: str | None = None
    rate_per_minute: int | None = None
    rate_burst: int | None = None
    monthly_characters: int | None = None
    top_priority: Priority = Priority.INTERACTIVE

    @property
    def is_anonymous(self) -> bool:
        return self.id.startswith("address:")


def anonymous(address: str) -> Principal:
    """The sender without credentials, where such are let in."""
    return Principal(id=f"address:{address}")


def cache_tenant(principal: Principal, scope: str | None) -> str:
    """Whose cached translations a sender sees: the id of whoever shares them with nobody, "" = everybody's.

    `scope` is the setting `cache_scope`. Without it those who are known apart, by a stored key or a JWT, are kept
    apart; the holders of the one configured key, and anonymous senders, share.
    """
    is_known = principal.key_id is not None or principal.session_id is not None or principal.id.startswith("jwt:")
    return principal.id if scope == "key" or (scope is None and is_known) else ""
