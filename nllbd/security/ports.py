"""What security needs of the store, and no more."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from nllbd.store.records import KeyRecord, SessionRecord


class KeyBook(Protocol):
    """Stored keys, and which sessions were revoked: from memory, at most 5 s behind the store.

    What cannot be known raises StoreUnavailable.
    """

    @property
    def num_keys(self) -> int:
        """Active keys."""

    @property
    def has_held_keys(self) -> bool | None:
        """Whether the store holds or ever held a key; None while that is not known."""

    @property
    def is_known(self) -> bool:
        """Whether it can be known at all which keys are good."""

    async def find(self, text: str, /) -> KeyRecord | None:
        """The active key with this text."""

    def get(self, key_id: str, /) -> KeyRecord | None:
        """The active key with this id."""

    def is_session_revoked(self, session_id: str, /) -> bool:
        """Whether a session was revoked, itself or with its key."""

    async def refresh(self) -> bool:
        """Ask the store now."""


class SessionStore(Protocol):
    """Where sessions live. Everything may raise StoreUnavailable."""

    async def add_session(self, session: SessionRecord, /) -> None: ...

    async def find_session(self, session_id: str, /) -> SessionRecord | None: ...

    async def revoke_session(self, session_id: str, at: datetime, /) -> object: ...


class AuditTrail(Protocol):
    """Takes events at once and writes them down later. No secrets, no texts."""

    def record(self, action: str, *, actor: str = "", subject: str = "", **details: str) -> None: ...

    def failed_authentication(self, address: str, reason: str) -> None: ...


class Accounts(Protocol):
    """The store as one daemon sees it. `store` raises StoreUnavailable until it is open; `has_store` says whether
    there is one at all.
    """

    @property
    def has_store(self) -> bool: ...

    @property
    def keys(self) -> KeyBook: ...

    @property
    def audit(self) -> AuditTrail: ...

    @property
    def store(self) -> SessionStore: ...
