"""`/auth/token`: exchange a key for a short session, and end one."""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from nllbd.errors import Forbidden, NoCredentials, NotFound
from nllbd.http import schema
from nllbd.http.body import read_json
from nllbd.http.context import CONTEXT, EXCHANGE
from nllbd.http.schema_auth import TokenRequest, TokenResponse
from nllbd.principal import Principal, Scope
from nllbd.store.key_text import is_id
from nllbd.store.records import SessionRecord


def routes() -> list[web.RouteDef]:
    return [web.post("/auth/token", issue), web.delete("/auth/token/{id}", revoke)]


async def issue(request: web.Request) -> web.StreamResponse:
    """`POST /auth/token`: whoever comes with a key gets a token that stands for it, for a while."""
    context, principal = request.app[CONTEXT], _known(request)
    wanted = TokenRequest()
    if request.body_exists:
        payload = await read_json(request, context.settings.max_body_bytes, context.body_timeout_s)
        wanted = schema.parse(payload, TokenRequest)
    issued = await context.guard.authenticator.issue_session(principal, wanted.expires_in)
    answer = TokenResponse(
        access_token=issued.token,
        token_type="Bearer",
        expires_in=issued.lifetime_s,
        session_id=issued.session.id,
    )
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=headers)


async def revoke(request: web.Request) -> web.StreamResponse:
    """`DELETE /auth/token/{id}`: the session itself, its key, or an admin may end it. Twice is once."""
    guard, principal = request.app[CONTEXT].guard, _known(request)
    session_id = request.match_info["id"]
    if principal.session_id is not None and principal.session_id != session_id:
        raise Forbidden("a session can end itself only")
    session = await guard.sessions.find(session_id) if is_id(session_id) else None
    if session is None or not _may_end(principal, session):
        raise NotFound("there is no such session")
    if session.revoked_at is None:
        await guard.sessions.revoke(session_id, actor=principal.id)
    return web.Response(status=204)


def _known(request: web.Request) -> Principal:
    principal = request[EXCHANGE].principal
    if principal.is_anonymous:
        raise NoCredentials("a key is needed: send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    return principal


def _may_end(principal: Principal, session: SessionRecord) -> bool:
    return session.subject == principal.id or Scope.ADMIN in principal.scopes
