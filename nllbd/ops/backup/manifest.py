"""What a run has stored, written last: a run without a manifest is none. Plain values and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nllbd.ops.backup.restic import BackupError

KIND = "manifest"
NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One snapshot of the run. `details`: what restoring it has to know."""

    kind: str
    snapshot: str
    num_bytes: int
    sha256: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One run. `facts` are figures of the database (see database.py), taken with its copy.

    `owners`: numeric ids of users and groups → their names, for a host where the same names have other numbers.
    `canary`: a translation that the daemon made at that time, or None.
    """

    host: str
    time: str
    version: str
    model: str
    pieces: tuple[Piece, ...]
    facts: Mapping[str, Any]
    owners: Mapping[str, Mapping[str, str]]
    canary: Mapping[str, Any] | None = None

    def piece(self, kind: str) -> Piece | None:
        return next((piece for piece in self.pieces if piece.kind == kind), None)

    def to_json(self) -> bytes:
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Raises BackupError for what is none, or one of a later format."""
        try:
            table = json.loads(content)
            if table.pop("format") != _FORMAT:
                raise BackupError("the backup was made by a later version of nllbd: restore it with that one")
            pieces = tuple(Piece(**piece) for piece in table.pop("pieces"))
            return cls(**table, pieces=pieces)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackupError(f"not a manifest: {error!r}") from None
