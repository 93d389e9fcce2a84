"""Requests and answers of `/auth/token`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from nllbd.security.sessions import DEFAULT_LIFETIME_S, MAX_LIFETIME_S


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /auth/token`; the body may be left out."""

    expires_in: Annotated[int, Meta(ge=1, le=MAX_LIFETIME_S, description="Seconds that the session lasts.")] = (
        DEFAULT_LIFETIME_S
    )


class TokenResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A session and its token, which is seen only here. `expires_in` is seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    session_id: str
