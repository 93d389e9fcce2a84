"""The name under which a translation is kept: a MAC of everything that the answer depends on.

Two requests get one name only if the same model, code, settings, languages, text and tenant are behind them. What goes
into a name is first written in a form that no two different values share; without the secret nobody can tell from a
name what it stands for, or find the name of a text they guess.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import astuple, dataclass

from nllbd.sched.sequence import SearchParams

Field = str | int | float | bool | None | tuple["Field", ...]
#: Gives the name of a segment: source language code, then core.
Namer = Callable[[str, str], bytes]

NAME_BYTES = 32
_PERSON = b"nllbd segment 1"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answers: fingerprints of code and model files, and how the engine computes. `device` without its number."""

    code: str
    model: str
    runner: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked of a segment, its text and source language aside. `max_num_beams` caps a guard's retry.

    `tenant` is who may see the answer; "" is everybody.
    """

    target: str
    params: SearchParams
    max_num_beams: int
    tenant: str = ""


def make_namer(secret: bytes, origin: Origin, recipe: Recipe) -> Namer:
    """Names for the segments of one job. `secret` has at most 64 bytes. Pure; safe in any thread."""
    state = hashlib.blake2b(key=secret, digest_size=NAME_BYTES, person=_PERSON)
    state.update(encode(astuple(origin)))
    state.update(encode(astuple(recipe)))

    def name(source: str, core: str) -> bytes:
        copy = state.copy()
        copy.update(_encode_text(source))
        copy.update(_encode_text(core))
        return copy.digest()

    return name


def encode(value: Field) -> bytes:
    """Bytes that no other value has, and that no other value's bytes begin with: each says its type and its length."""
    if value is None or isinstance(value, bool):
        return {None: b"n", True: b"t", False: b"f"}[value]
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, tuple):
        return struct.pack(">cQ", b"(", len(value)) + b"".join(map(encode, value))
    if isinstance(value, float):
        return struct.pack(">cd", b"d", value)
    digits = b"%d" % value
    return struct.pack(">cQ", b"i", len(digits)) + digits


def _encode_text(text: str) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    return struct.pack(">cQ", b"s", len(content)) + content
