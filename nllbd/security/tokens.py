"""JSON Web Tokens (RFC 7519): checked as RFC 8725 says, and made for our own sessions. Knows no store.

Which algorithm a token may use is decided by us, by the kind of key that we hold, never by the token: HS256 goes with
`jwt_secret`, RS256 with a key of the JWKS file, nothing else goes. An expiry and a subject are required; issuer and
audience are too where they are configured. Our sessions' tokens have a key of their own, made from `jwt_secret`: who
signs tokens with that secret elsewhere cannot make sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt
import msgspec
from jwt.warnings import InsecureKeyLengthWarning

from nllbd.config import Settings
from nllbd.errors import ConfigError, Unauthorized

_HS256, _RS256 = "HS256", "RS256"
#: The type in the header of our own sessions' tokens. The header is signed, so nobody else's token becomes one.
SESSION_TYPE = "nllbd-session+jwt"
SESSION_ISSUER = "nllbd"
_LEEWAY_S = 10.0
_MIN_RSA_BITS = 2048
MAX_TOKEN_LENGTH = 8192
_MAX_NAME_LENGTH = 200
_LAST_MOMENT = 253_402_300_799  # the year 9999's end: later ones are no times to anybody
_SESSION_LABEL = b"nllbd session tokens 1"
#: What PyJWT lets through of others' exceptions when a token is made of nonsense.
_NONSENSE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was found good. `claims` are its claims; `is_session`: we made it."""

    claims: Mapping[str, Any]
    expires_at: float
    is_session: bool

    @property
    def account(self) -> str:
        """Whose token it is: unique among issuers, for what follows the last colon is the subject and has none."""
        subject = str(self.claims.get("sub", "")).replace("%", "%25").replace(":", "%3A")
        return f"jwt:{self.claims.get('iss', '')}:{subject}"

    @property
    def scopes(self) -> frozenset[str]:
        """Claim `scope` (RFC 8693: words) or `scopes` (a list); without either it may translate."""
        given = self.claims.get("scope", self.claims.get("scopes", "translate"))
        words = given.split() if isinstance(given, str) else given
        return frozenset(word for word in words if isinstance(word, str)) if isinstance(words, list) else frozenset()


class Tokens:
    """Checks and makes tokens. Made anew when settings change; reads the JWKS file once."""

    def __init__(self, settings: Settings) -> None:
        warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)  # `notes` says it better
        self._secret = settings.jwt_secret
        self._session_key = session_key(settings.jwt_secret) if settings.jwt_secret is not None else b""
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._keys = _read_jwks(settings.jwt_jwks_file) if settings.jwt_jwks_file else MappingProxyType({})

    @property
    def is_configured(self) -> bool:
        """Whether any token could be good."""
        return self._secret is not None or bool(self._keys)

    def check(self, text: str) -> Token:
        """The token, if all is right with it. Raises Unauthorized that says what is wrong, never what the token is."""
        try:
            header = jwt.get_unverified_header(text)
        except _NONSENSE:
            raise Unauthorized("the token is not a JSON Web Token") from None
        is_session = header.get("typ") == SESSION_TYPE
        algorithm, key = self._key_for(header, is_session)
        claims = self._decode(text, key, algorithm, is_session)
        _check_times(claims)
        _check_names(claims)
        return Token(claims, float(claims["exp"]), is_session)

    def make_session(
        self, session_id: str, subject: str, issued: datetime, expires: datetime, more: Mapping[str, str]
    ) -> str:
        """A session's token."""
        assert self._secret is not None
        claims = {
            "iss": self._issuer or SESSION_ISSUER,
            "sub": subject,
            "jti": session_id,
            "iat": int(issued.timestamp()),
            "exp": int(expires.timestamp()),
            **more,
        }
        if self._audience:
            claims["aud"] = self._audience
        return jwt.encode(claims, self._session_key, algorithm=_HS256, headers={"typ": SESSION_TYPE})

    def _key_for(self, header: Mapping[str, Any], is_session: bool) -> tuple[str, Any]:
        algorithm = header.get("alg")
        if algorithm == _HS256 and self._secret is not None:
            return _HS256, self._session_key if is_session else self._secret
        if algorithm == _RS256 and self._keys and not is_session:
            key_id = header.get("kid")
            if key_id is None and len(self._keys) == 1:
                return _RS256, next(iter(self._keys.values()))
            if isinstance(key_id, str) and key_id in self._keys:
                return _RS256, self._keys[key_id]
            raise Unauthorized("the token's key is not among those of this server (header `kid`)")
        raise Unauthorized("the token's algorithm is not accepted here")

    def _decode(self, text: str, key: Any, algorithm: str, is_session: bool) -> dict[str, Any]:
        issuer = (self._issuer or SESSION_ISSUER) if is_session else self._issuer
        required = ["exp", "sub", *(["iss"] if issuer else []), *(["aud"] if self._audience else [])]
        try:
            return jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                issuer=issuer,
                audience=self._audience,
                leeway=0.0 if is_session else _LEEWAY_S,
                options={"require": [*required, *(["jti"] if is_session else [])]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Unauthorized("the token is not valid yet") from None
        except jwt.InvalidIssuerError:
            raise Unauthorized("the token is from another issuer than this server accepts") from None
        except jwt.InvalidAudienceError:
            raise Unauthorized("the token is for another audience than this server") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"the token has no claim `{error.claim}`") from None
        except _NONSENSE:
            raise Unauthorized("the token is not valid") from None


def notes(settings: Settings) -> tuple[str, ...]:
    """What an operator should know of the settings about tokens."""
    found = []
    if settings.jwt_secret is not None and len(settings.jwt_secret.encode()) < 32:
        found.append("jwt_secret is shorter than 32 bytes: it can be guessed from any token; use a random one")
    if settings.jwt_jwks_file is not None and not (settings.jwt_issuer and settings.jwt_audience):
        found.append("jwt_jwks_file without jwt_issuer and jwt_audience: tokens made for other services are accepted")
    return tuple(found)


def session_key(jwt_secret: str) -> bytes:
    """The key of sessions' tokens: HKDF (RFC 5869) with SHA-256, no salt, one block."""
    secret = hmac.digest(bytes(hashlib.sha256().digest_size), jwt_secret.encode(), "sha256")
    return hmac.digest(secret, _SESSION_LABEL + b"\x01", "sha256")


def _check_times(claims: Mapping[str, Any]) -> None:
    """Times are numbers (RFC 7519, NumericDate): words, truths, infinity and ages beyond any calendar are refused."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and 0 <= value <= _LAST_MOMENT):
            raise Unauthorized(f"the token's claim `{name}` is no time")


def _check_names(claims: Mapping[str, Any]) -> None:
    """Issuer and subject become an account's name, in logs and the database. Tokens without a subject would share one:
    who they are for is not known, so whose usage, quota and cache should they have?"""
    for name in ("iss", "sub", "jti"):
        value = claims.get(name, "")
        if not isinstance(value, str) or len(value) > _MAX_NAME_LENGTH or not value.isprintable():
            raise Unauthorized(f"the token's claim `{name}` is not a short text")
    if not claims["sub"].strip():
        raise Unauthorized("the token's claim `sub` is empty")


def _read_jwks(path: Path) -> Mapping[str, Any]:
    """RSA public keys by id. Raises ConfigError that says what is wrong with the file."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        entries = document["keys"]
        keys = {str(entry.get("kid", "")): _rsa_key(entry) for entry in entries if _is_ours(entry)}
    except OSError as error:
        raise ConfigError(f"jwt_jwks_file: {path}: cannot be read: {error.strerror}", field="jwt_jwks_file") from None
    except (jwt.PyJWTError, msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"jwt_jwks_file: {path}: not a JSON Web Key Set (RFC 7517)", field="jwt_jwks_file") from None
    if not keys:
        raise ConfigError(f"jwt_jwks_file: {path}: no RSA key for RS256 signatures in it", field="jwt_jwks_file")
    return MappingProxyType(keys)


def _is_ours(entry: Mapping[str, Any]) -> bool:
    """RSA, for signatures, for RS256 as far as it says."""
    return bool(entry["kty"] == "RSA" and entry.get("use", "sig") == "sig" and entry.get("alg", _RS256) == _RS256)


def _rsa_key(entry: Mapping[str, Any]) -> Any:
    if "d" in entry:
        raise ConfigError(
            "jwt_jwks_file holds a private key: keep it where tokens are signed, and give its public part here",
            field="jwt_jwks_file",
        )
    key = jwt.PyJWK(dict(entry), algorithm=_RS256).key
    if key.key_size < _MIN_RSA_BITS:
        message = f"jwt_jwks_file: an RSA key of {key.key_size} bits is too weak; use at least {_MIN_RSA_BITS}"
        raise ConfigError(message, field="jwt_jwks_file")
    return key
