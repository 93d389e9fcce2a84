"""Request bodies: read under limits of size and time, decoded from JSON with errors that say what is wrong."""

from __future__ import annotations

import codecs
import json
import math
import zlib
from typing import Any

import msgspec
from aiohttp import hdrs, web

from nllbd.errors import BodyTimeout, BodyTooLarge, InvalidJson, InvalidType, InvalidValue, UnsupportedMediaType
from nllbd.timeouts import TimeLimit

_JSON = "application/json"
_PLAIN, _COMPRESSED = ("", "identity"), ("gzip", "x-gzip", "deflate")
_ANY_ZLIB_HEADER = 47  # wbits: gzip or zlib, whichever comes
_NO_HEADER = -15
_DEFLATE, _LOW_NIBBLE = 8, 0x0F
_GZIP_MAGIC = b"\x1f\x8b"
#: A gzip file may consist of several (RFC 1952); each costs some time, however small it is.
_MAX_MEMBERS = 100
_NAMES_SHOWN = 64
_CHARSETS = ("", "utf-8", "utf8", "us-ascii")


async def read_json(request: web.Request, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """The body as a JSON object. `max_bytes` counts after decompression; nothing beyond it is held in memory.

    Raises UnsupportedMediaType, BodyTooLarge, BodyTimeout, InvalidJson, InvalidType, InvalidValue.
    """
    return as_object(await read_json_value(request, max_bytes, timeout_s))


async def read_json_value(request: web.Request, max_bytes: int, timeout_s: float) -> Any:
    """The body as any JSON value. Limits and errors as in `read_json`."""
    _check_media_type(request)
    return decode_json(await read_body(request, max_bytes, timeout_s))


def as_object(decoded: Any) -> dict[str, Any]:
    """A decoded JSON value that must be an object. Raises InvalidType."""
    if not isinstance(decoded, dict):
        raise InvalidType(f'expected a JSON object such as {{"text": …}}, got {json_type_name(decoded)}')
    return decoded


async def read_body(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, decompressed. Raises BodyTooLarge, BodyTimeout, UnsupportedMediaType, InvalidValue."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in _PLAIN + _COMPRESSED:
        raise UnsupportedMediaType(f"Content-Encoding must be gzip or deflate, or absent; got {encoding[:40]!r}")
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    body = await _receive(request, max_bytes, timeout_s)
    return _decompress(body, max_bytes, encoding) if encoding in _COMPRESSED else body


async def _receive(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body as it comes over the wire."""
    content = request.content
    if content.is_eof() and content.total_bytes <= max_bytes:
        return content.read_nowait()  # it came with the headers, as small ones do
    body = bytearray()
    try:
        with TimeLimit(timeout_s):
            while chunk := await content.readany():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise BodyTimeout(f"the body did not arrive within {timeout_s:g} s") from None
    return bytes(body)


def _decompress(body: bytes, max_bytes: int, encoding: str) -> bytes:
    """At most `max_bytes` come out, however small the body that asks for more."""
    content = bytearray()
    for _ in range(_MAX_MEMBERS):
        decompressor = zlib.decompressobj(_window_of(body) if encoding == "deflate" else _ANY_ZLIB_HEADER)
        try:
            content += decompressor.decompress(body, max_bytes + 1 - len(content))
        except zlib.error:
            raise InvalidValue("the body does not hold to its Content-Encoding") from None
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if not decompressor.eof:
            raise InvalidValue("the compressed body is cut short")
        body = decompressor.unused_data
        if not body:
            return bytes(content)
        if not body.startswith(_GZIP_MAGIC):
            raise InvalidValue("something follows the compressed body")
    raise InvalidValue(f"the compressed body has more than {_MAX_MEMBERS} parts")


def _window_of(body: bytes) -> int:
    """zlib's `wbits` for what begins so. Many send `deflate` without the header that it should have (RFC 9110)."""
    head = body[:2]
    is_zlib = len(head) == 2 and head[0] & _LOW_NIBBLE == _DEFLATE and int.from_bytes(head) % 31 == 0
    return _ANY_ZLIB_HEADER if is_zlib or head == _GZIP_MAGIC else _NO_HEADER


def decode_json(body: bytes) -> Any:
    """Any JSON value from UTF-8 bytes. Raises InvalidJson that says where it broke, InvalidValue for 1e999."""
    body = body.removeprefix(codecs.BOM_UTF8)  # some write one, though it means nothing
    if not body.strip():
        raise InvalidJson("the body is empty; expected a JSON object")
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise InvalidJson("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        if (too_large := _number_too_large(body)) is not None:
            raise too_large from None
        raise InvalidJson(f"the body is not valid JSON: {_reason(error)}") from None


def json_type_name(value: object) -> str:
    """What JSON calls the type of a decoded value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _number_too_large(body: bytes) -> InvalidValue | None:
    """The refusal of a body that is JSON but for a number beyond what floating point holds, such as 1e999."""
    try:
        decoded = json.loads(body.decode(), parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    for name, value in decoded.items() if isinstance(decoded, dict) else ():
        if isinstance(value, float) and math.isinf(value):
            field = name[:_NAMES_SHOWN]
            return InvalidValue(f"{field}: the number is too large", field=field)
    return None


def _no_constant(name: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(name)


def _reason(error: msgspec.DecodeError) -> str:
    return str(error).removeprefix("JSON is malformed: ").split(" - at ")[0]


def _check_media_type(request: web.Request) -> None:
    """JSON only; a request that names no type at all is taken at its word that the body is JSON."""
    if request.headers.get(hdrs.CONTENT_TYPE, _JSON) == _JSON:
        return
    kind = request.content_type
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {kind[:80]!r}")
    if (request.charset or "").lower() not in _CHARSETS:
        raise UnsupportedMediaType("JSON must be encoded in UTF-8")


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes, the most that this server accepts")
