"""What the dialects have in common: texts checked against the limits, languages resolved, the form of an error answer.

Knows no HTTP library and none of the dialects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nllbd.errors import EmptyText, InvalidType, TextTooLong, TooManyTexts
from nllbd.http.body import json_type_name
from nllbd.languages import Language, Languages

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as a dialect tells it: status, JSON, headers besides the usual ones.

    `is_final`: no `Retry-After`, for its clients would come back by themselves, and should not.
    """

    status: int
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a request, checked. `is_list`: they came as a list, and so must the answer."""

    items: tuple[str, ...]
    is_list: bool


def as_texts(value: Any, name: str) -> Texts:
    """A string or a list of strings. Raises InvalidType that names the item at fault, EmptyText for an empty list."""
    if isinstance(value, str):
        return Texts((value,), is_list=False)
    if not isinstance(value, list):
        raise InvalidType(f"{name}: expected a string or an array of strings, got {json_type_name(value)}", field=name)
    if not value:
        raise EmptyText(f"{name} is empty; give at least one text", field=name)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            at = f"{name}[{index}]"
            raise InvalidType(f"{at}: expected a string, got {json_type_name(item)}", field=at)
    return Texts(tuple(value), is_list=True)


def check_number(texts: Sequence[str], most: int, name: str) -> None:
    """Raise TooManyTexts for more than `most` texts."""
    if len(texts) > most:
        raise TooManyTexts(f"{name}: {len(texts)} texts; at most {most} are taken at once", field=name)


def check_lengths(texts: Sequence[str], most: int, name: str, *, is_list: bool) -> None:
    """Raise TextTooLong, naming the first text of more than `most` code points."""
    for index, text in enumerate(texts):
        if len(text) > most:
            at = f"{name}[{index}]" if is_list else name
            raise TextTooLong(f"{at} has {len(text)} characters; this server takes at most {most}", field=at)


def as_text(value: Any, name: str) -> str:
    """A string. Raises InvalidType for anything else, a name repeated in a form or query included."""
    if not isinstance(value, str):
        raise InvalidType(f"{name}: expected a string, got {json_type_name(value)}", field=name)
    return value


def resolve(name: str, aliases: Mapping[str, str], languages: Languages, field_name: str) -> Language:
    """A language by a dialect's own name for it, or by any that `Languages` knows.

    `aliases`: lower-case names of the dialect → FLORES codes. Raises UnknownLanguage or UnsupportedPair.
    """
    return languages.resolve(aliases.get(name.strip().lower(), name), field_name)
