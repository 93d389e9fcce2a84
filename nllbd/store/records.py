"""The plain values that go into the store and come out of it. Knows no database.

Times are aware datetimes in UTC. Secrets are never among them: a key is known by the SHA-256 of its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from nllbd.principal import Principal, Scope
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
    """A stored API key. `id` is public (it is in logs, usage and `nllbd keys list`); `digest` is 32 bytes.

    A key that replaces another (rotation) stays in its `family`, the id of the first one: usage, quota, rate bucket and
    cache go on as they were. None = the key is the first.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaces: str | None = None
    family: str | None = None

    @property
    def account(self) -> str:
        """What usage is booked on: the `id` of the key's Principal."""
        return f"key:{self.family or self.id}"

    def is_active(self, now: datetime) -> bool:
        """Whether the key is good at `now`. A revoked one is not, whatever clock the moment was read from."""
        return self.revoked_at is None and not (self.expires_at is not None and self.expires_at <= now)

    def principal(self) -> Principal:
        """Who sends a request with this key."""
        return Principal(
            id=self.account,
            name=self.name,
            scopes=self.scopes,
            key_id=self.id,
            rate_per_minute=self.limits.rate_per_minute,
            rate_burst=self.limits.rate_burst,
            monthly_characters=self.limits.monthly_characters,
            top_priority=self.limits.top_priority,
        )


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What became of keys and sessions since an earlier look.

    `generation` is how far this look goes: give it to the next one. `keys` are all that changed, revoked ones too;
    `revoked_sessions` are ids. `is_set_back`: the database was at an earlier look later than it is now, so nobody can
    say what changed.
    """

    generation: int
    keys: tuple[KeyRecord, ...]
    revoked_sessions: frozenset[str]
    is_set_back: bool = False


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
