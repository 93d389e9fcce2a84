"""The plain values that go into the store and come out of it. Knows no database.

Times are aware datetimes in UTC. Secrets are never among them: a key is known by the SHA-256 of its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from nllbd.principal import Scope
from nllbd.sched.sequence import Priority


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use. None = as the server's settings say; `monthly_characters` None = no quota."""

    rate_per_minute: int | None = None
    rate_burst: int | None = None
    monthly_characters: int | None = None
    top_priority: Priority = Priority.INTERACTIVE


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A stored API key. `id` is public (it is in logs, usage and `nllbd keys list`); `digest` is 32 bytes."""

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A short session that a key was exchanged for (`POST /auth/token`). It ends with its key."""

    id: str
    key_id: str | None
    subject: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """What one account used on one day (UTC)."""

    account: str
    day: date
    characters: int = 0
    requests: int = 0
    segments: int = 0
    source_tokens: int = 0
    target_tokens: int = 0


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Entries that are booked together, once: a batch whose id was booked before changes nothing."""

    id: str
    entries: tuple[UsageEntry, ...]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that an operator will want to know of later. `details` holds no secret and no text."""

    at: datetime
    actor: str
    action: str
    subject: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GlossaryRecord:
    """Terms and their fixed translations, of one account. Languages are FLORES codes."""

    id: str
    account: str
    name: str
    source_lang: str
    target_lang: str
    entries: Mapping[str, str]
    created_at: datetime
