"""Sessions: a key exchanged for a token that ends by itself, can be revoked, and ends with its key. Knows no HTTP.

A token names a stored session, and carries no right of its own: every use looks at the session, at the list of revoked
ones and at the key, all in memory but for a session's first use on a host. A session of the configured key carries a
keyed fingerprint of it, for that key may be a guessable word: change it, and its sessions end.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nllbd.errors import NotImplementedYet, Unauthorized
from nllbd.principal import Principal
from nllbd.security.bounded import BoundedMap
from nllbd.security.ports import Accounts
from nllbd.security.tokens import Tokens, session_key
from nllbd.store.key_text import new_id
from nllbd.store.records import SessionRecord

DEFAULT_LIFETIME_S = 900
MAX_LIFETIME_S = 3600
_REMEMBERED = 65_536
_FINGERPRINT_CLAIM = "nllbd_api_key"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new session and its token: the only time that the token is seen."""

    token: str
    session: SessionRecord

    @property
    def lifetime_s(self) -> int:
        return round((self.session.expires_at - self.session.created_at).total_seconds())


class Sessions:
    """Issues, checks and revokes sessions. Without accounts there are none."""

    def __init__(self, accounts: Accounts | None) -> None:
        self._accounts = accounts
        self._known: BoundedMap[str, SessionRecord] = BoundedMap(_REMEMBERED)

    async def issue(
        self, tokens: Tokens, principal: Principal, proof: Mapping[str, str], expires_at: datetime
    ) -> Issued:
        """A session of `principal`, stored. `proof` are further claims that bind it to its key. Raises
        StoreUnavailable.
        """
        accounts = self._available()
        session = SessionRecord(
            id=new_id(),
            key_id=principal.key_id,
            subject=principal.id,
            scopes=principal.scopes,
            created_at=datetime.now(UTC).replace(microsecond=0),
            expires_at=expires_at,
        )
        await accounts.store.add_session(session)
        self._known.put(session.id, session)
        accounts.audit.record("session.issued", actor=principal.id, subject=session.id)
        more = {**proof, "scope": " ".join(sorted(session.scopes))}
        token = tokens.make_session(session.id, session.subject, session.created_at, session.expires_at, more)
        return Issued(token, session)

    async def running(self, session_id: str) -> SessionRecord:
        """The session with this id. Raises Unauthorized for one that has ended or never was, StoreUnavailable when that
        cannot be known.
        """
        accounts = self._available()
        session = self._known.get(session_id)
        if session is None:
            session = await accounts.store.find_session(session_id)
            if session is None or session.revoked_at is not None:
                raise Unauthorized("the session has ended")
            self._known.put(session_id, session)
        if session.expires_at <= datetime.now(UTC) or accounts.keys.is_session_revoked(session_id):
            raise Unauthorized("the session has ended")
        return session

    async def find(self, session_id: str) -> SessionRecord | None:
        """The session with this id, ended or not. Raises StoreUnavailable."""
        return await self._available().store.find_session(session_id)

    async def revoke(self, session_id: str, actor: str) -> None:
        """End a session: here before this returns, elsewhere within seconds. Raises StoreUnavailable."""
        accounts = self._available()
        await accounts.store.revoke_session(session_id, datetime.now(UTC))
        accounts.audit.record("session.revoked", actor=actor, subject=session_id)
        await accounts.keys.refresh()

    def _available(self) -> Accounts:
        if self._accounts is None:
            raise NotImplementedYet("sessions need a database; this server has none")
        return self._accounts


def expiry(lifetime_s: int, key_expires_at: datetime | None) -> datetime:
    """When a session that begins now ends: never after its key."""
    wanted = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=lifetime_s)
    return wanted if key_expires_at is None else min(wanted, key_expires_at)


def fingerprint_of(api_key: str, jwt_secret: str) -> dict[str, str]:
    """The claim that binds a session to the configured key."""
    return {_FINGERPRINT_CLAIM: hmac.new(session_key(jwt_secret), api_key.encode(), hashlib.sha256).hexdigest()[:32]}


def has_fingerprint_of(claims: Mapping[str, Any], api_key: str, jwt_secret: str) -> bool:
    """Whether a session comes from the key that is configured now."""
    expected = fingerprint_of(api_key, jwt_secret)[_FINGERPRINT_CLAIM]
    return hmac.compare_digest(str(claims.get(_FINGERPRINT_CLAIM, "")).encode(), expected.encode())
