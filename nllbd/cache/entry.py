"""A kept translation, and how it is written for Redis: encrypted, and bound to its name and to its end.

Whoever can read Redis learns no text; whoever can write to it can make us miss, never make us answer wrongly: a value
that was changed, moved to another name, or kept beyond its time is not opened.
"""

from __future__ import annotations

import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12
_SALT = b"nllbd cache"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A segment's translations, best first, and what is to be said about the best."""

    texts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class _Letter(msgspec.Struct, frozen=True, array_like=True):
    """What is encrypted. `expires_at` is a Unix time."""

    expires_at: float
    entry: Entry


class Sealer:
    """Writes entries so that only holders of the same secret can read them. Safe in any thread.

    `name_key` is for names. Each value has a key of its own, derived from its name, so that random nonces never come
    near the number at which two would be equal.
    """

    def __init__(self, secret: bytes) -> None:
        self.name_key = _derive(secret, b"names")
        self._value_key = _derive(secret, b"values")
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Letter)

    def seal(self, name: bytes, entry: Entry, expires_at: float) -> bytes:
        """Nonce, then ciphertext and tag."""
        nonce = os.urandom(_NONCE_BYTES)
        content = self._encoder.encode(_Letter(expires_at, entry))
        return nonce + self._cipher(name).encrypt(nonce, content, name)

    def open(self, name: bytes, sealed: bytes) -> tuple[Entry, float]:
        """The entry and its Unix time of expiry. Raises ValueError for anything that was not sealed for this name."""
        try:
            content = self._cipher(name).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name)
        except InvalidTag:
            raise ValueError("not sealed with this secret for this name") from None
        letter = self._decoder.decode(content)  # DecodeError is a ValueError
        return letter.entry, letter.expires_at

    def _cipher(self, name: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(name, key=self._value_key, digest_size=32).digest())


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=_SALT, info=purpose).derive(secret)
