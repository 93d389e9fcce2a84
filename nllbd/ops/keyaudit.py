"""Which keys nobody uses, which never end, which are old. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from nllbd.store.records import KeyRecord


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """An active key. `last_used` is its account's: a rotated key shares it with the one it replaces. Days are whole."""

    key: KeyRecord
    last_used: date | None
    age_days: int
    unused_days: int

    @property
    def is_endless(self) -> bool:
        return self.key.expires_at is None


def audit(keys: Sequence[KeyRecord], last_used: Mapping[str, date], now: datetime) -> list[KeyFacts]:
    """Active keys, the longest unused first."""
    found = [_facts(key, last_used.get(key.account), now) for key in keys if key.is_active(now)]
    return sorted(found, key=lambda it: (-it.unused_days, it.key.id))


def _facts(key: KeyRecord, used: date | None, now: datetime) -> KeyFacts:
    made = key.created_at.date()
    since = max(used, made) if used else made
    return KeyFacts(key, used, (now.date() - made).days, (now.date() - since).days)


def shown(facts: KeyFacts) -> str:
    """An id and a name; never more of a key."""
    return f"{facts.key.id} ({facts.key.name})"
