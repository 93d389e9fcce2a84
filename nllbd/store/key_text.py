"""The text of an API key: `nllbd_<id>_<secret>`. Made here, recognised here; only its digest is ever stored."""

from __future__ import annotations

import hashlib
import re
import secrets
import string

_PREFIX = "nllbd"
_ID_ALPHABET = string.ascii_lowercase + string.digits
_SECRET_ALPHABET = string.ascii_letters + string.digits  # a double click selects all of it
_ID_LENGTH = 12
_SECRET_LENGTH = 43  # 256 bits
_ID = re.compile(rf"[a-z0-9]{{{_ID_LENGTH}}}")
_FORM = re.compile(rf"{_PREFIX}_[a-z0-9]{{{_ID_LENGTH}}}_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")


def new_id() -> str:
    """A public id, of a key or of anything else that is stored."""
    return _random(_ID_ALPHABET, _ID_LENGTH)


def new_text(key_id: str) -> str:
    """The text of a new key with this id: shown to its owner once, then forgotten."""
    return f"{_PREFIX}_{key_id}_{_random(_SECRET_ALPHABET, _SECRET_LENGTH)}"


def is_key_text(text: str) -> bool:
    """Whether a credential has the form of a stored key; no other needs to be looked for in the store."""
    return _FORM.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether something has the form of an id that `new_id` makes; no other needs to be looked for in the store."""
    return _ID.fullmatch(text) is not None


def digest(text: str) -> bytes:
    """What the store knows a key by: SHA-256 of its text, 32 bytes. With 256 random bits it needs no salt."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
