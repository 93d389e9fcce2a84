"""From a credential to its Principal: the configured key, a stored key, a token, a session's token. Knows no HTTP.

Credentials are compared by their SHA-256, in constant time or as keys of a dictionary: what a comparison's duration
could tell is then something about a digest, from which nobody gets to the credential.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nllbd.config import Settings
from nllbd.errors import Forbidden, NotImplementedYet, Unauthorized
from nllbd.principal import Principal, Scope
from nllbd.security import sessions as making
from nllbd.security.bounded import BoundedMap
from nllbd.security.ports import KeyBook
from nllbd.security.sessions import Issued, Sessions
from nllbd.security.tokens import MAX_TOKEN_LENGTH, Token, Tokens
from nllbd.store.key_text import is_key_text
from nllbd.store.records import KeyRecord

CONFIGURED_KEY = "api_key"
_REMEMBERED = 8192
_NUM_DOTS = 2


@dataclass(frozen=True, slots=True)
class _KnownKey:
    """A stored key's record and what was made of it: as long as the record is the same object, so is the rest."""

    record: KeyRecord
    principal: Principal


class Authenticator:
    """Belongs to one event loop. Whatever is in memory is answered without waiting for anything."""

    def __init__(self, settings: Settings, tokens: Tokens, keys: KeyBook | None, sessions: Sessions) -> None:
        self._keys = keys
        self._sessions = sessions
        self._known_keys: BoundedMap[str, _KnownKey] = BoundedMap(_REMEMBERED)
        self._known_tokens: BoundedMap[bytes, Token] = BoundedMap(_REMEMBERED)
        self.apply(settings, tokens)

    def apply(self, settings: Settings, tokens: Tokens) -> None:
        """Take over credentials that changed live."""
        self._api_key = settings.api_key
        self._api_key_digest = digest_of(settings.api_key) if settings.api_key else b""
        self._jwt_secret = settings.jwt_secret
        self._tokens = tokens
        self._known_tokens.clear()
        self._configured = Principal(id=CONFIGURED_KEY, name=CONFIGURED_KEY)

    @property
    def is_configured(self) -> bool:
        """Whether the settings name any credentials; stored keys come besides."""
        return bool(self._api_key_digest) or self._tokens.is_configured

    async def identify(self, credential: str, digest: bytes) -> Principal:
        """Whose credential this is; `digest` is `digest_of` it.

        Raises Unauthorized if nobody's, or StoreUnavailable if that cannot be known.
        """
        if self._api_key_digest and hmac.compare_digest(digest, self._api_key_digest):
            return self._configured
        if self._keys is not None and is_key_text(credential):
            return self._principal_of(await self._keys.find(credential))
        if self._tokens.is_configured and credential.count(".") == _NUM_DOTS:
            token = self._token(credential, digest)
            return await self._of_session(token.claims) if token.is_session else _bearer_of(token)
        raise Unauthorized("the key is not valid")

    async def issue_session(self, principal: Principal, lifetime_s: int) -> Issued:
        """A session for whoever came with a key.

        Raises Forbidden for anything but a key, NotImplementedYet where sessions cannot be made, StoreUnavailable.
        """
        is_key = principal.session_id is None and (principal.key_id is not None or principal.id == CONFIGURED_KEY)
        if not is_key:
            raise Forbidden("only a key can be exchanged for a session")
        if self._jwt_secret is None:
            raise NotImplementedYet("sessions need jwt_secret to be set; this server has none")
        if principal.key_id is None:
            assert self._api_key is not None
            proof = making.fingerprint_of(self._api_key, self._jwt_secret)
            return await self._sessions.issue(self._tokens, principal, proof, making.expiry(lifetime_s, None))
        record = self._keys.get(principal.key_id) if self._keys is not None else None
        if record is None:
            raise Unauthorized("the key is not valid")
        expires_at = making.expiry(lifetime_s, record.expires_at)
        return await self._sessions.issue(self._tokens, principal, {}, expires_at)

    def _principal_of(self, record: KeyRecord | None) -> Principal:
        if record is None:
            raise Unauthorized("the key is not valid")
        known = self._known_keys.get(record.id)
        if known is None or known.record is not record:
            known = _KnownKey(record, record.principal())
            self._known_keys.put(record.id, known)
        return known.principal

    def _token(self, text: str, digest: bytes) -> Token:
        """A token that was checked before is only asked whether it has expired."""
        known = self._known_tokens.get(digest)
        if known is not None and known.expires_at > time.time():
            return known
        if len(text) > MAX_TOKEN_LENGTH:
            raise Unauthorized("the token is too long")
        token = self._tokens.check(text)
        self._known_tokens.put(digest, token)
        return token

    async def _of_session(self, claims: Mapping[str, Any]) -> Principal:
        """The key's principal, limits and all, as far as the session and the key are both still good."""
        session = await self._sessions.running(str(claims["jti"]))
        if session.key_id is not None and self._keys is not None:
            principal = self._principal_of(self._keys.get(session.key_id))
        elif session.key_id is None and self._is_of_configured_key(claims):
            principal = self._configured
        else:
            raise Unauthorized("the session's key is no longer valid")
        return replace(principal, session_id=session.id, scopes=principal.scopes & session.scopes)

    def _is_of_configured_key(self, claims: Mapping[str, Any]) -> bool:
        if self._api_key is None or self._jwt_secret is None:
            return False
        return making.has_fingerprint_of(claims, self._api_key, self._jwt_secret)


def _bearer_of(token: Token) -> Principal:
    """Admin endpoints need a key that can be revoked here: no other issuer's word is enough for them."""
    scopes = frozenset({Scope.TRANSLATE} if Scope.TRANSLATE in token.scopes else ())
    return Principal(id=token.account, name=str(token.claims["sub"]), scopes=scopes)


def digest_of(credential: str) -> bytes:
    """SHA-256: equal lengths for comparisons, and nothing secret in a dictionary."""
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
