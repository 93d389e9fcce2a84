"""Figures by which a copy of the database can be held against its original: counts, sums, a digest of the keys.

The statements are plain SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: Fact → the query with its one value.
SCALARS = {
    "revision": "SELECT max(version_num) FROM alembic_version",
    "keys": "SELECT count(*) FROM keys",
    "sessions": "SELECT count(*) FROM sessions",
    "usage_rows": "SELECT count(*) FROM usage",
    "usage_characters": "SELECT coalesce(sum(characters), 0) FROM usage",
    "usage_requests": "SELECT coalesce(sum(requests), 0) FROM usage",
    "batches": "SELECT count(*) FROM batches",
    "audit": "SELECT count(*) FROM audit",
    "glossaries": "SELECT count(*) FROM glossaries",
}
#: Fact → the query whose rows it is a digest of. Keys are known by their SHA-256: no secret comes in here.
DIGESTS = {
    "keys_sha256": "SELECT id, digest, name, family FROM keys ORDER BY id",
    "glossaries_sha256": "SELECT id, account, name, source_lang, target_lang, entries FROM glossaries ORDER BY id",
}

Rows = Callable[[str], Iterable[Sequence[Any]]]


def read_facts(rows: Rows) -> dict[str, Any]:
    """All facts of one database; `rows` runs a query."""
    facts: dict[str, Any] = {name: _plain(next(iter(rows(query)))[0]) for name, query in SCALARS.items()}
    return facts | {name: _digest(rows(query)) for name, query in DIGESTS.items()}


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is not as it was, in words. Facts that either side does not know are passed over."""
    return [
        f"{name} is {found[name]}, was {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | None) else int(value)  # PostgreSQL sums to Decimal


def _digest(rows: Iterable[Sequence[Any]]) -> str:
    found = hashlib.sha256()
    for row in rows:
        for value in row:
            found.update(bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode())
            found.update(b"\0")
    return found.hexdigest()
