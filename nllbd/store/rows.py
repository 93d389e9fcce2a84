"""Records to rows of the tables and back. What a later version may have written is read as the safe thing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from nllbd.principal import Scope
from nllbd.sched.sequence import Priority
from nllbd.store.names import clean_name
from nllbd.store.records import (
    AuditEvent,
    GlossaryRecord,
    KeyLimits,
    KeyRecord,
    SessionRecord,
    UsageEntry,
)

AnyRow = Row[Any]


def key_to_row(key: KeyRecord, generation: int) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "digest": key.digest,
        "scopes": _join(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "replaces": key.replaces,
        "family": key.family,
        "rate_per_minute": key.limits.rate_per_minute,
        "rate_burst": key.limits.rate_burst,
        "monthly_characters": key.limits.monthly_characters,
        "top_priority": key.limits.top_priority.name.lower(),
        "generation": generation,
    }


def row_to_key(row: AnyRow) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        name=row.name,
        digest=bytes(row.digest),
        scopes=_split(row.scopes),
        created_at=row.created_at,
        limits=KeyLimits(
            rate_per_minute=row.rate_per_minute,
            rate_burst=row.rate_burst,
            monthly_characters=row.monthly_characters,
            top_priority=_priority(row.top_priority),
        ),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        replaces=row.replaces,
        family=row.family,
    )


def session_to_row(session: SessionRecord) -> dict[str, Any]:
    return {
        "id": session.id,
        "key_id": session.key_id,
        "subject": session.subject,
        "scopes": _join(session.scopes),
        "created_at": session.created_at,
        "expires_at": session.expires_at,
        "revoked_at": session.revoked_at,
    }


def row_to_session(row: AnyRow) -> SessionRecord:
    return SessionRecord(
        id=row.id,
        key_id=row.key_id,
        subject=row.subject,
        scopes=_split(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def row_to_usage(row: AnyRow) -> UsageEntry:
    return UsageEntry(
        account=row.account,
        day=row.day,
        characters=row.characters,
        requests=row.requests,
        segments=row.segments,
        source_tokens=row.source_tokens,
        target_tokens=row.target_tokens,
    )


def audit_to_row(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "subject": event.subject,
        "details": dict(event.details),
    }


def row_to_audit(row: AnyRow) -> AuditEvent:
    return AuditEvent(at=row.at, actor=row.actor, action=row.action, subject=row.subject, details=row.details)


def glossary_to_row(glossary: GlossaryRecord) -> dict[str, Any]:
    return {
        "id": glossary.id,
        "account": clean_name(glossary.account),
        "name": glossary.name,
        "source_lang": glossary.source_lang,
        "target_lang": glossary.target_lang,
        "entries": dict(glossary.entries),
        "created_at": glossary.created_at,
    }


def row_to_glossary(row: AnyRow) -> GlossaryRecord:
    return GlossaryRecord(
        id=row.id,
        account=row.account,
        name=row.name,
        source_lang=row.source_lang,
        target_lang=row.target_lang,
        entries=row.entries,
        created_at=row.created_at,
    )


def _join(scopes: frozenset[Scope]) -> str:
    return ",".join(sorted(scopes))


def _split(scopes: str) -> frozenset[Scope]:
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[name] for name in scopes.split(",") if name in known)


def _priority(name: str) -> Priority:
    """An unknown class is the one that gets least."""
    return next((priority for priority in Priority if priority.name.lower() == name), Priority.BULK)
