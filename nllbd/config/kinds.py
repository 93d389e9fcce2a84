"""How one setting's value is read from text or TOML, checked, and written back. Knows no setting by name.

A *kind* is a parser, a check and a phrase that completes "expected …". Parsers take what a person wrote (environment,
flag, TOML string) or a TOML scalar, and raise ValueError; the phrase tells the person what would have been right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_BYTE_UNITS = {"": 1, "b": 1} | {
    unit: 1024**power
    for power, letter in enumerate("kmgt", start=1)
    for unit in (letter, f"{letter}ib")  # K as systemd and nginx read it: 1024
}
_BYTE_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)}
_SECOND_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_WHOLE = re.compile(r"[+-]?[0-9](?:[0-9_]{0,17}[0-9])?")
_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]*)")
_MAX_COUNT = 2**63 - 1


@dataclass(frozen=True)
class Kind:
    """One type of setting. `parse` takes str or a TOML scalar; `check` gets a parsed value; both raise ValueError."""

    name: str
    expected: str
    parse: Callable[[Any], Any]
    check: Callable[[Any], None]
    masked: bool = False  # may carry a password inside (a URL)

    def write(self, value: Any) -> str:
        """`value` as a person would write it, in a form that `parse` reads back."""
        if isinstance(value, bool):
            return str(value).lower()
        if self.name == "bytes":
            return _written_bytes(value)
        if isinstance(value, tuple):
            return ",".join(value)
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value)


def text(expected: str = "text", pattern: str = r"(?s).+", name: str = "text") -> Kind:
    """Text that matches `pattern` as a whole."""
    compiled = re.compile(pattern)

    def check(value: Any) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError

    return Kind(name, expected, _text, check)


def choice(*values: str, fold: Callable[[str], str] = str.lower) -> Kind:
    """One of `values`; `fold` brings what a person wrote to their spelling."""

    def check(value: Any) -> None:
        if value not in values:
            raise ValueError

    return Kind("choice", "one of " + ", ".join(values), lambda raw: fold(_text(raw)), check)


def count(minimum: int = 0, maximum: int = _MAX_COUNT) -> Kind:
    """A whole number."""
    upper = "" if maximum == _MAX_COUNT else f" to {maximum}"
    return Kind("count", f"a whole number from {minimum}{upper}", _whole, _within(minimum, maximum, int))


def number(minimum: float, maximum: float) -> Kind:
    """A finite number."""
    return Kind("number", f"a number from {minimum:g} to {maximum:g}", _number, _within(minimum, maximum, int, float))


def byte_count(minimum: int = 0) -> Kind:
    """Bytes, with or without a unit: 4096, 64KiB, 1.5 GB; K, M, G, T alone are powers of 1024."""
    return Kind("bytes", f"a size of at least {minimum} bytes such as 1MiB", _bytes, _within(minimum, _MAX_COUNT, int))


def seconds(minimum: float = 0.0, maximum: float = 366 * 86400.0) -> Kind:
    """A duration: 30, 30s, 500ms, 2m, 1h, 7d."""
    expected = f"a duration from {minimum:g} to {maximum:g} s such as 30s"
    return Kind("seconds", expected, _seconds, _within(minimum, maximum, int, float))


def flag() -> Kind:
    """A yes or a no."""

    def check(value: Any) -> None:
        if not isinstance(value, bool):
            raise ValueError

    return Kind("flag", "true or false", _flag, check)


def flag_or(word: str) -> Kind:
    """True, false, or one word."""

    def parse(raw: Any) -> Any:
        return word if isinstance(raw, str) and raw.strip().lower() == word else _flag(raw)

    def check(value: Any) -> None:
        if not isinstance(value, bool) and value != word:
            raise ValueError

    return Kind("choice", f"true, false or {word}", parse, check)


def path() -> Kind:
    """A file or folder; `~` is expanded."""

    def check(value: Any) -> None:
        if not isinstance(value, Path):
            raise ValueError

    return Kind("path", "a path", lambda raw: Path(_text(raw)).expanduser(), check)


def url(*schemes: str) -> Kind:
    """A URL with one of `schemes`; passwords in it are masked when shown."""

    def check(value: Any) -> None:
        if not isinstance(value, str) or urlsplit(value).scheme not in schemes:
            raise ValueError

    return Kind("url", "a URL that starts with " + " or ".join(f"{s}://" for s in schemes), _text, check, masked=True)


def many(expected: str, check_item: Callable[[str], None]) -> Kind:
    """A list: comma-separated text, or a TOML array of strings."""

    def parse(raw: Any) -> tuple[str, ...]:
        items = raw if isinstance(raw, list | tuple) else _text(raw).split(",")
        return tuple(item for item in (_text(item).strip() for item in items) if item)

    def check(value: Any) -> None:
        if not isinstance(value, tuple):
            raise ValueError
        for item in value:
            check_item(item)

    return Kind("list", expected, parse, check)


def origin(item: str) -> None:
    """Raise ValueError unless `item` is `*` or a web origin: scheme, host, optional port, nothing else."""
    if item != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", item):
        raise ValueError


def network(item: str) -> None:
    """Raise ValueError unless `item` is an IP address or a network in CIDR form."""
    ipaddress.ip_network(item, strict=False)


def mask_url(value: str) -> str:
    """The URL with user, password and query hidden: enough to see where it points."""
    parts = urlsplit(value)
    host = parts.netloc.rpartition("@")
    netloc = f"***@{host[2]}" if host[1] else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))


def _within(minimum: float, maximum: float, *types: type) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) not in types or not minimum <= value <= maximum:
            raise ValueError

    return check


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or "\0" in raw:
        raise ValueError
    return raw


def _whole(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if not _WHOLE.fullmatch(stripped := _text(raw).strip()):
        raise ValueError
    return int(stripped)


def _number(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    value, unit = _split_unit(raw)
    if unit:
        raise ValueError
    return float(value)


def _bytes(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    value, unit = _split_unit(raw)
    if unit not in _BYTE_UNITS:
        raise ValueError
    total = Fraction(value) * _BYTE_UNITS[unit]  # exact: a float cannot hold every count
    if total.denominator != 1:
        raise ValueError
    return int(total)


def _written_bytes(count: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return str(count)


def _seconds(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    value, unit = _split_unit(raw)
    if unit not in _SECOND_UNITS:
        raise ValueError
    return float(value) * _SECOND_UNITS[unit]


def _split_unit(raw: Any) -> tuple[str, str]:
    match = _NUMBER.fullmatch(_text(raw).strip())
    if not match:
        raise ValueError
    return match[1], match[2].lower()


def _flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = _text(raw).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE
