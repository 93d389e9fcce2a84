"""Names as every database takes them: accounts, and what the audit log says. They come from tokens and requests."""

from __future__ import annotations

import hashlib

MAX_NAME = 200


def clean_name(name: str) -> str:
    """A name without NULs and lone surrogates; a long one is cut and told apart by a hash."""
    clean = name.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(clean) <= MAX_NAME:
        return clean
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{clean[: MAX_NAME - len(mark) - 1]}~{mark}"


def is_plain(name: str) -> bool:
    """Whether `clean_name` leaves a name alone, told quickly; of few others it says no, too."""
    return len(name) <= MAX_NAME and name.isascii() and name.isprintable()
