"""Credentials in requests: where they may stand, whose they are, what that allows, and the unit that they are charged.

Headers and query are looked at before a request's body is read. Routes of dialects that put their key into the body
come through unauthenticated if they bring none elsewhere; their handlers then call `authenticate_body`, and until that
was done nothing is translated for them (`require_authenticated`).
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import hdrs, web

from nllbd import metrics
from nllbd.errors import Forbidden, InvalidValue, NoCredentials, Unauthorized
from nllbd.http.clients import network_of
from nllbd.http.context import CONTEXT, EXCHANGE, Exchange
from nllbd.principal import Scope
from nllbd.security import rates
from nllbd.security.authenticator import digest_of
from nllbd.security.guard import Guard

#: Routes whose body may carry the key (LibreTranslate's `api_key`).
BODY_CREDENTIAL_ROUTES = frozenset({"/translate", "/detect", "/suggest", "/translate_file"})
#: Routes that begin so show the daemon's insides: scope `admin`.
_ADMIN_PREFIX = "/debug/"
#: Schemes of the Authorization header, in lower case: ours and DeepL's.
_SCHEMES = frozenset({"bearer", "deepl-auth-key"})
#: Headers whose whole value is a key: ours, Azure's, Google's.
KEY_HEADERS = ("X-API-Key", "Ocp-Apim-Subscription-Key", "X-Goog-Api-Key")
#: Names in the query that hold a key: Google's and LibreTranslate's.
_KEY_NAMES = ("key", "api_key")
_MAX_CREDENTIAL_LENGTH = 8192


async def authenticate(request: web.Request) -> None:
    """Find out who sends the request, whether they may, and charge them a unit.

    Raises Unauthorized, Forbidden, InvalidValue (two credentials), RateLimited, StoreUnavailable.
    """
    exchange, guard = request[EXCHANGE], request.app[CONTEXT].guard
    if guard.checks_credentials:
        credentials = presented(request)
        if credentials:
            await _identify(request, exchange, guard, credentials)
        elif request.method == hdrs.METH_POST and exchange.route in BODY_CREDENTIAL_ROUTES:
            return  # the body may have them
    await _let_in(exchange, guard)


async def authenticate_body(request: web.Request, keys: Iterable[object]) -> None:
    """The same for a request whose body was read: `keys` are the credentials found in it, if any.

    To be called by the handlers of `BODY_CREDENTIAL_ROUTES` once they know the body. What was authenticated by its
    headers is not charged again; a key in the body must then be the same.
    """
    exchange, guard = request[EXCHANGE], request.app[CONTEXT].guard
    found = [key for key in keys if isinstance(key, str) and key] if guard.checks_credentials else []
    if found:
        await _identify(request, exchange, guard, [*presented(request), *found])
    if not exchange.is_authenticated:
        await _let_in(exchange, guard)


def require_authenticated(request: web.Request) -> None:
    """Raises Unauthorized if nobody has asked who sends this request: a handler forgot to."""
    if not request[EXCHANGE].is_authenticated:
        raise NoCredentials("no credentials")


def presented(request: web.Request) -> list[str]:
    """All credentials in a request's headers and query; a name without a value is none. Raises Unauthorized for an
    Authorization of another kind.
    """
    headers = request.headers
    found: list[str] = []
    if hdrs.AUTHORIZATION in headers:
        found += map(_from_authorization, headers.getall(hdrs.AUTHORIZATION))
    for name in KEY_HEADERS:
        if name in headers:
            found += (value.strip() for value in headers.getall(name))
    if "key=" in request.query_string:
        for name in _KEY_NAMES:
            found += request.query.getall(name, ())
    return [credential for credential in found if credential]


def _from_authorization(value: str) -> str:
    scheme, _, credential = value.strip().partition(" ")
    if scheme.lower() not in _SCHEMES or not credential.strip():
        raise Unauthorized("Authorization must be `Bearer KEY`, or `DeepL-Auth-Key KEY`")
    return credential.strip()


async def _identify(request: web.Request, exchange: Exchange, guard: Guard, credentials: list[str]) -> None:
    """Set the request's principal. Who fails is counted by address, and told of without the credential."""
    credential = credentials[0]
    if len(credentials) > 1 and len(set(credentials)) > 1:
        raise InvalidValue("the request carries two different credentials; send one", field="Authorization")
    network, digest = network_of(exchange.client), digest_of(credential)
    guard.check_known()
    guard.attempts.check(network, digest)
    try:
        if not credential or len(credential) > _MAX_CREDENTIAL_LENGTH:
            raise Unauthorized("the key is not valid")
        exchange.principal = await guard.authenticator.identify(credential, digest)
    except Unauthorized as error:
        guard.attempts.note_failure(network, exchange.client, error.message, digest)
        request.app[CONTEXT].metrics.add(metrics.AUTH_FAILURES)
        raise
    guard.attempts.note_success(network, digest)
    exchange.has_credentials = True


async def _let_in(exchange: Exchange, guard: Guard) -> None:
    """What this principal may do here, and its unit of the rate limit."""
    if not exchange.has_credentials and not guard.lets_anonymous_in:
        guard.check_known()
        raise NoCredentials("no credentials: send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    _check_scope(exchange)
    exchange.is_authenticated = True
    await _charge(exchange, guard)


def _check_scope(exchange: Exchange) -> None:
    principal = exchange.principal
    if exchange.route.startswith("/auth/"):
        return
    needed = Scope.ADMIN if exchange.route.startswith(_ADMIN_PREFIX) else Scope.TRANSLATE
    if needed in principal.scopes:
        return
    if principal.is_anonymous:
        raise NoCredentials(f"this needs a key with scope `{needed}`")
    raise Forbidden(f"this needs scope `{needed}`, which these credentials do not have")


async def _charge(exchange: Exchange, guard: Guard) -> None:
    policy = guard.rates.policy_of(exchange.principal)
    if policy is None:
        return
    decision = guard.rates.charge_here(exchange.principal, policy)
    if decision is None:
        decision = await guard.rates.charge_shared(exchange.principal, policy)
    exchange.rate = decision
    rates.check(decision)
