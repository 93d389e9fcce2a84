"""When certificates on this host end."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509


@dataclass(frozen=True, slots=True)
class Certificate:
    path: Path
    name: str
    ends: datetime

    def days_left(self, now: datetime) -> float:
        return (self.ends - now).total_seconds() / 86400


def find(patterns: Iterable[str]) -> list[Certificate]:
    """The first certificate of every file that a pattern names, the one that ends first at the front. Files without
    one, private keys for example, are passed over. Raises OSError.
    """
    paths = sorted({Path(name) for pattern in patterns for name in glob.glob(pattern)})
    found = [it for it in map(_read, paths) if it is not None]
    return sorted(found, key=lambda it: it.ends)


def _read(path: Path) -> Certificate | None:
    content = path.read_bytes()
    if b"BEGIN CERTIFICATE" not in content:
        return None
    certificate = x509.load_pem_x509_certificates(content)[0]
    return Certificate(path, certificate.subject.rfc4514_string(), certificate.not_valid_after_utc)
