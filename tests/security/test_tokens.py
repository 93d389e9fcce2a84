"""Tokens under attack: only what was signed with our key, by our algorithm, for us, and in time, is let in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from nllbd.config import Settings
from nllbd.errors import ConfigError, Unauthorized
from nllbd.security.tokens import SESSION_TYPE, Tokens, notes, session_key

SECRET = "a secret of thirty-two bytes or more"
ISSUER, AUDIENCE = "https://id.example", "nllbd"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_jwk(key: rsa.RSAPrivateKey, **more: str) -> dict[str, Any]:
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), **more}


def jwks_file(folder: Path, *keys: dict[str, Any]) -> Path:
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    return path


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with some changed; `...` removes one."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def signed(algorithm: str = "HS256", key: Any = SECRET, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def by_hand(header: dict[str, Any], payload: dict[str, Any], key: bytes | None) -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    text = b".".join(parts)
    signature = hmac.new(key, text, hashlib.sha256).digest() if key is not None else b""
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """HS256 with the secret and RS256 with one key, issuer and audience required."""
    path = jwks_file(tmp_path, public_jwk(KEY, kid="one"))
    return Tokens(Settings(jwt_secret=SECRET, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks_file=path))


def test_good_tokens(tokens: Tokens) -> None:
    for text in (signed(), signed("RS256", KEY, {"kid": "one"}), signed("RS256", KEY), signed(aud=["x", AUDIENCE])):
        token = tokens.check(text)
        assert token.account == f"jwt:{ISSUER}:alice"
        assert token.scopes == {"translate"}
        assert not token.is_session
    assert tokens.check(signed(scope="openid translate")).scopes == {"openid", "translate"}
    assert tokens.check(signed(scopes=["admin"])).scopes == {"admin"}
    assert tokens.check(signed(scope={"a": 1})).scopes == set()


def test_no_two_senders_have_one_account() -> None:
    tokens = Tokens(Settings(jwt_secret=SECRET))
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b%3Ac"), ("a:b%3Ac", " x"), ("", "a:b:c"), ("a", "b%253Ac")]
    accounts = {tokens.check(signed(iss=issuer, sub=subject, aud=...)).account for issuer, subject in pairs}
    assert len(accounts) == len(pairs)


NOW = int(time.time())
BAD: dict[str, Any] = {
    "expired": lambda: signed(exp=NOW - 60),
    "no expiry": lambda: signed(exp=...),
    "expiry null": lambda: signed(exp=None),
    "expiry a word": lambda: by_hand({"alg": "HS256"}, claims(exp="soon"), SECRET.encode()),
    "expiry infinite": lambda: by_hand({"alg": "HS256"}, claims(exp=1e400), SECRET.encode()),
    "not yet valid": lambda: signed(nbf=NOW + 600),
    "made in the future": lambda: signed(iat=NOW + 600),
    "other issuer": lambda: signed(iss="https://evil.example"),
    "no issuer": lambda: signed(iss=...),
    "issuers listed": lambda: by_hand({"alg": "HS256"}, claims(iss=[ISSUER, "x"]), SECRET.encode()),
    "other audience": lambda: signed(aud="shop"),
    "no audience": lambda: signed(aud=...),
    "other secret": lambda: signed(key="another secret of thirty-two bytes!!"),
    "other RSA key": lambda: signed("RS256", OTHER_KEY, {"kid": "one"}),
    "unknown kid": lambda: signed("RS256", KEY, {"kid": "two"}),
    "kid a path": lambda: signed("RS256", KEY, {"kid": "../../dev/null"}),
    "other HMAC": lambda: signed("HS512"),
    "other RSA algorithm": lambda: signed("RS512", KEY, {"kid": "one"}),
    "PSS": lambda: signed("PS256", KEY, {"kid": "one"}),
    "alg none": lambda: by_hand({"alg": "none", "typ": "JWT"}, claims(), None),
    "alg None": lambda: by_hand({"alg": "None"}, claims(), None),
    "alg nOnE, signed": lambda: by_hand({"alg": "nOnE"}, claims(), SECRET.encode()),
    "alg missing": lambda: by_hand({}, claims(), SECRET.encode()),
    "alg a list": lambda: by_hand({"alg": ["HS256"]}, claims(), SECRET.encode()),
    "key confusion, PEM": lambda: by_hand({"alg": "HS256", "kid": "one"}, claims(), PEM),
    "key confusion, JWK": lambda: by_hand({"alg": "HS256"}, claims(), json.dumps(public_jwk(KEY, kid="one")).encode()),
    "empty HMAC key": lambda: by_hand({"alg": "HS256"}, claims(), b""),
    "own key in the header": lambda: signed("RS256", OTHER_KEY, {"jwk": public_jwk(OTHER_KEY)}),
    "key's address in the header": lambda: signed("RS256", OTHER_KEY, {"jku": "https://evil.example/jwks"}),
    "critical extension": lambda: by_hand({"alg": "HS256", "crit": ["exp2"], "exp2": 1}, claims(), SECRET.encode()),
    "signature cut": lambda: signed()[:-3],
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "payload changed": lambda: ".".join(
        [signed().split(".")[0], signed(sub="root").split(".")[1], signed().split(".")[2]]
    ),
    "payload no object": lambda: by_hand({"alg": "HS256"}, [1], SECRET.encode()),  # type: ignore[arg-type]
    "header no object": lambda: by_hand([1], claims(), SECRET.encode()),  # type: ignore[arg-type]
    "expiry a long way off": lambda: signed(exp=10**400),
    "expiry a long way off, signed whole": lambda: signed(exp=9e18),
    "expiry true": lambda: signed(exp=True),
    "expiry a number in words": lambda: signed(exp=str(NOW + 600)),
    "expiry minus infinity": lambda: by_hand({"alg": "HS256"}, claims(exp=-1e400), SECRET.encode()),
    "expiry no number": lambda: by_hand({"alg": "HS256"}, claims(exp=float("nan")), SECRET.encode()),
    "expiry a list": lambda: by_hand({"alg": "HS256"}, claims(exp=[NOW + 600]), SECRET.encode()),
    "not before, endless": lambda: signed(nbf=10**400),
    "not before, true": lambda: signed(nbf=True),
    "not before, infinite": lambda: by_hand({"alg": "HS256"}, claims(nbf=-1e400), SECRET.encode()),
    "made at a word": lambda: signed(iat="x"),
    "made at no time": lambda: by_hand({"alg": "HS256"}, claims(iat=None), SECRET.encode()),
    "made at minus infinity": lambda: by_hand({"alg": "HS256"}, claims(iat=-1e400), SECRET.encode()),
    "bytes that are no text": lambda: "a.\udcff\udcfe.b",
    "bytes that are no text, in the signature": lambda: signed()[:-4] + "\udcff\udcff",
    "no subject": lambda: signed(sub=...),
    "subject empty": lambda: signed(sub=""),
    "subject blank": lambda: signed(sub="  "),
    "subject null": lambda: by_hand({"alg": "HS256"}, claims(sub=None), SECRET.encode()),
    "a session by who has the secret": lambda: signed(headers={"typ": SESSION_TYPE}, jti="abcdefabcdef"),
    "subject a number": lambda: by_hand({"alg": "HS256"}, claims(sub=7), SECRET.encode()),
    "subject endless": lambda: signed(sub="a" * 5000),
    "subject with a line break": lambda: signed(sub="a\nlevel=error"),
    "three dots of nothing": lambda: "..",
    "not base64": lambda: "ä.ö.ü",
    "a session without one": lambda: signed(headers={"typ": SESSION_TYPE}),
    "a session by RS256": lambda: signed("RS256", KEY, {"kid": "one", "typ": SESSION_TYPE}, jti="x"),
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_bad_tokens(tokens: Tokens, what: str) -> None:
    text = BAD[what]()
    with pytest.raises(Unauthorized) as caught:
        tokens.check(text)
    assert caught.value.message
    assert SECRET not in caught.value.message
    assert text not in caught.value.message or len(text) < 3


@given(
    st.one_of(
        st.text(),
        st.tuples(*[st.binary(max_size=40)] * 3).map(
            lambda it: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in it)
        ),
    )
)
def test_whatever_comes_is_unauthorized(text: str) -> None:
    with pytest.raises(Unauthorized):
        Tokens(Settings(jwt_secret=SECRET)).check(text)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 2 * NOW),
    st.sampled_from([10**30, 10**400, -(10**400), 2**63, 253_402_300_800]),
    st.floats(),
    st.text(),
    st.lists(st.text() | st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "sub", "iss", "aud", "jti", "scope", "scopes", "crit"]), ODD, max_size=6
    )
)
def test_whatever_is_signed_is_a_token_or_unauthorized(changes: dict[str, Any]) -> None:
    tokens = Tokens(Settings(jwt_secret=SECRET))
    try:
        token = tokens.check(by_hand({"alg": "HS256"}, claims(**{"aud": ..., **changes}), SECRET.encode()))
    except Unauthorized:
        return
    assert NOW - 60 < token.expires_at < 253_402_300_800
    assert token.account.startswith("jwt:")
    assert not token.account.endswith(":")
    assert all(isinstance(scope, str) for scope in token.scopes)


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "x5c"]), ODD | st.just("HS256")))
def test_whatever_a_header_says_is_a_token_or_unauthorized(header: dict[str, Any]) -> None:
    tokens = Tokens(Settings(jwt_secret=SECRET))
    try:
        tokens.check(by_hand(header, claims(aud=...), SECRET.encode()))
    except Unauthorized:
        return
    assert header["alg"] == "HS256"


def test_an_hs256_only_server_takes_no_rs256_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized):
        Tokens(Settings(jwt_secret=SECRET)).check(signed("RS256", KEY, aud=...))
    public_only = Tokens(Settings(jwt_jwks_file=jwks_file(tmp_path, public_jwk(KEY))))
    for key in (PEM, b"", SECRET.encode()):
        with pytest.raises(Unauthorized):
            public_only.check(by_hand({"alg": "HS256"}, claims(aud=...), key))
    assert public_only.check(signed("RS256", KEY, aud=...)).account == f"jwt:{ISSUER}:alice"


def test_a_session_s_token_is_one_and_others_are_not() -> None:
    tokens = Tokens(Settings(jwt_secret=SECRET, jwt_audience=AUDIENCE))
    now = datetime.now(UTC)
    text = tokens.make_session("abc", "key:x", now, now + timedelta(seconds=60), {"nllbd_key": "x"})
    token = tokens.check(text)
    assert token.is_session
    assert (token.claims["jti"], token.claims["sub"], token.claims["nllbd_key"]) == ("abc", "key:x", "x")
    assert jwt.decode(text, session_key(SECRET), algorithms=["HS256"], audience=AUDIENCE)["jti"] == "abc"
    with pytest.raises(jwt.InvalidSignatureError):  # no token to those who check tokens with the secret elsewhere
        jwt.decode(text, SECRET, algorithms=["HS256"], audience=AUDIENCE)
    expired = tokens.make_session("abc", "key:x", now - timedelta(seconds=9), now - timedelta(seconds=1), {})
    with pytest.raises(Unauthorized, match="expired"):
        tokens.check(expired)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a JSON Web Key Set"),
        ("[]", "not a JSON Web Key Set"),
        ('{"keys": 7}', "not a JSON Web Key Set"),
        ('{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}', "not a JSON Web Key Set|too weak"),
        ('{"keys": []}', "no RSA key"),
        ('{"keys": [{"kty": "EC", "crv": "P-256"}]}', "no RSA key"),
    ],
)
def test_a_key_file_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        Tokens(Settings(jwt_jwks_file=path))


def test_private_keys_and_weak_ones_are_refused_and_not_repeated(tmp_path: Path) -> None:
    private = jwt.algorithms.RSAAlgorithm.to_jwk(KEY, as_dict=True)
    with pytest.raises(ConfigError, match="private key") as caught:
        Tokens(Settings(jwt_jwks_file=jwks_file(tmp_path, private)))
    assert private["d"] not in caught.value.message
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(ConfigError, match="too weak"):
        Tokens(Settings(jwt_jwks_file=jwks_file(tmp_path, public_jwk(weak))))
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens(Settings(jwt_jwks_file=tmp_path / "absent.json"))


def test_what_an_operator_is_told(tmp_path: Path) -> None:
    assert notes(Settings(jwt_secret=SECRET)) == ()
    assert "shorter than 32" in notes(Settings(jwt_secret="short"))[0]
    assert "other services" in notes(Settings(jwt_jwks_file=tmp_path / "x"))[0]
