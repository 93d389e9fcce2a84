"""Form bodies and query strings as plain fields. Knows bytes and names, no HTTP library and no dialect.

Follows the URL standard's `application/x-www-form-urlencoded` and RFC 7578 (`multipart/form-data`), strictly: text must
be UTF-8, and what is cut short is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from nllbd.errors import InvalidValue

MAX_FIELDS = 1_000
_MAX_HEADERS_BYTES = 8_192
_PARAMETER = re.compile(r""";\s*(?P<name>[a-z*]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^;\s"]*))""", re.I)

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body. `filename` is None for a plain field."""

    name: str
    filename: str | None
    content: bytes


def fields(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Names with their value, or with a list of them where a name is repeated."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def parse_urlencoded(body: bytes) -> list[Pair]:
    """Names and values in order, empty values too. Raises InvalidValue."""
    try:
        return parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except UnicodeError:
        raise InvalidValue("the form is not percent-encoded UTF-8") from None
    except ValueError:
        raise InvalidValue(f"the form has more than {MAX_FIELDS} fields") from None


def parse_multipart(body: bytes, boundary: str) -> list[Part]:
    """The parts of a multipart body in order. Raises InvalidValue for what is not well-formed."""
    if not boundary or len(boundary) > 70 or not boundary.isascii():
        raise InvalidValue("multipart/form-data needs a boundary of 1 to 70 ASCII characters")
    delimiter = b"\r\n--" + boundary.encode()
    preamble, *sections = (b"\r\n" + body).split(delimiter, MAX_FIELDS + 1)
    if not sections or preamble.strip():
        raise InvalidValue("the multipart body does not begin with its boundary")
    if len(sections) > MAX_FIELDS:
        raise InvalidValue(f"the form has more than {MAX_FIELDS} fields")
    *sections, closing = sections
    if not closing.startswith(b"--"):
        raise InvalidValue("the multipart body is cut short: its closing boundary is missing")
    return [_part(section) for section in sections]


def text_pairs(parts: Iterable[Part]) -> Iterator[Pair]:
    """The plain fields of a multipart form. Raises InvalidValue where one is not UTF-8."""
    for part in parts:
        if part.filename is None:
            try:
                yield part.name, part.content.decode()
            except UnicodeError:
                raise InvalidValue("a field of the form is not UTF-8") from None


def _part(section: bytes) -> Part:
    head, separator, content = section.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not separator or len(head) > _MAX_HEADERS_BYTES:
        raise InvalidValue("a part of the multipart body has no headers, or too long ones")
    disposition = _disposition(head)
    if "name" not in disposition:
        raise InvalidValue("a part of the multipart body has no name")
    return Part(disposition["name"], disposition.get("filename"), content)


def _disposition(head: bytes) -> dict[str, str]:
    """The parameters of the part's Content-Disposition; names in lower case."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeError:
        raise InvalidValue("a header of the multipart body is not UTF-8") from None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return {
                match["name"].lower(): re.sub(r"\\(.)", r"\1", match["quoted"] or "") or match["plain"] or ""
                for match in _PARAMETER.finditer(value)
            }
    return {}
