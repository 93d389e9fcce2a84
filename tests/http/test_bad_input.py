"""Every bad input of the interface, on a real port: its status, its code, its field, and always the error object."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest

JSON = {"Content-Type": "application/json"}
GOOD = {"text": "Hello there.", "source_lang": "eng_Latn", "target_lang": "fra_Latn"}


def body(**changes: Any) -> bytes:
    """The good request with some fields changed; `...` removes one."""
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...}).encode()


DEEP = b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b',"target_lang":"fr"}'
CASES: dict[str, tuple[bytes, int, str, str | None]] = {
    # what: body, status, code, field
    "empty body": (b"", 400, "invalid_json", None),
    "blank body": (b"  \n", 400, "invalid_json", None),
    "not json": (b"text=Hello", 400, "invalid_json", None),
    "truncated json": (b'{"text": "Hel', 400, "invalid_json", None),
    "two documents": (body() + body(), 400, "invalid_json", None),
    "single quotes": (b"{'text': 'Hello'}", 400, "invalid_json", None),
    "a comment": (b'{"text": "Hi" /* */}', 400, "invalid_json", None),
    "trailing comma": (b'{"text": "Hi",}', 400, "invalid_json", None),
    "NaN": (body(length_penalty=float("nan")), 400, "invalid_json", None),
    "Infinity": (body(length_penalty=float("inf")), 400, "invalid_json", None),
    "minus Infinity": (body(length_penalty=-float("inf")), 400, "invalid_json", None),
    "number out of range": (body()[:-1] + b', "timeout_s": 1e999}', 400, "invalid_value", "timeout_s"),
    "penalty out of range": (body()[:-1] + b', "length_penalty": -1e999}', 400, "invalid_value", "length_penalty"),
    "endless number": (body()[:-1] + b', "num_beams": ' + b"9" * 5000 + b"}", 400, "invalid_value", "num_beams"),
    "number out of range, then cut": (body()[:-1] + b', "timeout_s": 1e999', 400, "invalid_json", None),
    "deep nesting": (DEEP, 400, "invalid_json", None),
    "deep objects": (b'{"a":' * 50_000, 400, "invalid_json", None),
    "invalid utf-8": (b'{"text": "\xff\xfe", "target_lang": "fr"}', 400, "invalid_json", None),
    "utf-8 surrogate": (b'{"text": "\xed\xa0\x80", "target_lang": "fr"}', 400, "invalid_json", None),
    "overlong utf-8": (b'{"text": "\xc0\xaf", "target_lang": "fr"}', 400, "invalid_json", None),
    "utf-16": (body().decode().encode("utf-16"), 400, "invalid_json", None),
    "lone high surrogate": (rb'{"text": "a\ud800b", "target_lang": "fr"}', 400, "invalid_json", None),
    "lone low surrogate": (rb'{"text": "\udc00", "target_lang": "fr"}', 400, "invalid_json", None),
    "control character": (b'{"text": "a\x01", "target_lang": "fr"}', 400, "invalid_json", None),
    "a list": (b"[]", 400, "invalid_type", None),
    "a string": (b'"Hello"', 400, "invalid_type", None),
    "null": (b"null", 400, "invalid_type", None),
    "a number": (b"7", 400, "invalid_type", None),
    "no text": (body(text=...), 400, "missing_field", "text"),
    "no target": (body(target_lang=...), 400, "missing_field", "target_lang"),
    "no field at all": (b"{}", 400, "missing_field", "text"),
    "text null": (body(text=None), 400, "invalid_type", "text"),
    "text a number": (body(text=7), 400, "invalid_type", "text"),
    "text an object": (body(text={"a": 1}), 400, "invalid_type", "text"),
    "text a boolean": (body(text=True), 400, "invalid_type", "text"),
    "an item a number": (body(text=["a", 7]), 400, "invalid_type", "text[1]"),
    "an item null": (body(text=[None]), 400, "invalid_type", "text[0]"),
    "an item a list": (body(text=[["a"]]), 400, "invalid_type", "text[0]"),
    "target a list": (body(target_lang=["fr"]), 400, "invalid_type", "target_lang"),
    "target null": (body(target_lang=None), 400, "invalid_type", "target_lang"),
    "source a number": (body(source_lang=1), 400, "invalid_type", "source_lang"),
    "beams a string": (body(num_beams="4"), 400, "invalid_type", "num_beams"),
    "beams a fraction": (body(num_beams=2.5), 400, "invalid_type", "num_beams"),
    "beams a boolean": (body(num_beams=True), 400, "invalid_type", "num_beams"),
    "penalty a string": (body(length_penalty="x"), 400, "invalid_type", "length_penalty"),
    "early a number": (body(early_stopping=1), 400, "invalid_type", "early_stopping"),
    "stream a string": (body(stream="yes"), 400, "invalid_type", "stream"),
    "priority a number": (body(priority=1), 400, "invalid_type", "priority"),
    "beams zero": (body(num_beams=0), 400, "invalid_value", "num_beams"),
    "beams negative": (body(num_beams=-1), 400, "invalid_value", "num_beams"),
    "beams too many": (body(num_beams=9), 400, "invalid_value", "num_beams"),
    "beams huge": (body(num_beams=10**30), 400, "invalid_value", "num_beams"),
    "length too small": (body(max_length=2), 400, "invalid_value", "max_length"),
    "length beyond positions": (body(max_length=1025), 400, "invalid_value", "max_length"),
    "length huge": (body(max_length=10**18), 400, "invalid_value", "max_length"),
    "penalty huge": (body(length_penalty=1e300), 400, "invalid_value", "length_penalty"),
    "penalty an endless integer": (body(length_penalty=10**400), 400, "*", "*"),
    "early a word": (body(early_stopping="sometimes"), 400, "invalid_value", "early_stopping"),
    "alternatives streamed": (body(alternatives=2, stream=True), 400, "invalid_value", "alternatives"),
    "alternatives negative": (body(alternatives=-1), 400, "invalid_value", "alternatives"),
    "alternatives beyond beams": (body(alternatives=3, num_beams=2), 400, "invalid_value", "alternatives"),
    "format unknown": (body(format="markdown"), 400, "invalid_value", "format"),
    "priority unknown": (body(priority="urgent"), 400, "invalid_value", "priority"),
    "timeout zero": (body(timeout_s=0), 400, "invalid_value", "timeout_s"),
    "timeout negative": (body(timeout_s=-5), 400, "invalid_value", "timeout_s"),
    "unknown field": (body(beams=4), 400, "invalid_value", "beams"),
    "unknown long field": (body(**{"x" * 5000: 4}), 400, "invalid_value", "x" * 64 + "…"),
    "empty text": (body(text=""), 400, "empty_text", "text"),
    "empty list": (body(text=[]), 400, "empty_text", "text"),
    "unknown target": (body(target_lang="klingon"), 400, "unknown_language", "target_lang"),
    "unknown source": (body(source_lang="xx_Yyyy"), 400, "unknown_language", "source_lang"),
    "empty target": (body(target_lang=""), 400, "unknown_language", "target_lang"),
    "target auto": (body(target_lang="auto"), 400, "unknown_language", "target_lang"),
    "in FLORES, not in the model": (body(target_lang="arb_Latn"), 400, "unknown_language", "target_lang"),
    "huge language name": (body(source_lang="x" * 100_000), 400, "unknown_language", "source_lang"),
    "language with NUL": (body(source_lang="en\0"), 400, "unknown_language", "source_lang"),
    "undetectable": (body(source_lang="auto", text="qwerty"), 422, "language_not_detected", "text"),
    "undetectable item": (body(source_lang="auto", text=["Hello", "qwerty"]), 422, "language_not_detected", "text[1]"),
    "text too long": (body(text="a" * 5001), 413, "text_too_long", "text"),
    "item too long": (body(text=["a", "é" * 5001]), 413, "text_too_long", "text[1]"),
    "too many texts": (body(text=["a"] * 129), 413, "too_many_texts", "text"),
    "body too large": (b" " * (1 << 20) + body(), 413, "body_too_large", None),
}


@pytest.mark.parametrize("what", sorted(CASES))
async def test_bad_bodies(start_service: Any, what: str) -> None:
    service = await start_service(max_request_size=5000)
    content, status, code, field = CASES[what]
    headers = {"Content-Type": "application/json", "X-Request-Id": "mine-1"}
    got, answer, response = await service.request("POST", "/translate", data=content, headers=headers)
    error = answer["error"]
    assert set(error) == {"code", "message", "field", "request_id"}
    assert got == status, error
    assert code in (error["code"], "*")
    assert field in (error["field"], "*")
    assert error["request_id"] == response.headers["X-Request-Id"] == "mine-1"
    assert error["message"]
    assert len(error["message"]) < 500


async def test_an_unknown_field_names_the_nearest(service: Any) -> None:
    _, answer, _ = await service.request("POST", "/translate", data=body(num_beam=2), headers=JSON)
    assert "num_beams" in answer["error"]["message"]


async def test_a_choice_names_what_is_possible(service: Any) -> None:
    for field, possible in (("priority", "bulk"), ("format", "html"), ("early_stopping", "never")):
        _, answer, _ = await service.request("POST", "/translate", data=body(**{field: "?"}), headers=JSON)
        assert possible in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/translate", 405, "method_not_allowed"),
        ("DELETE", "/translate", 405, "method_not_allowed"),
        ("PATCH", "/translate", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/translate/", 404, "not_found"),
        ("GET", "/static/../../etc/passwd", 404, "not_found"),
        ("GET", "/static/%2e%2e%2fapp.py", 404, "not_found"),
        ("GET", "/static/none.js", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
    ],
)
async def test_wrong_paths_and_methods(service: Any, method: str, path: str, status: int, code: str) -> None:
    got, answer, response = await service.request(method, path)
    assert (got, answer["error"]["code"]) == (status, code)
    assert (status != 405) or response.headers["Allow"]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "multipart/mixed; boundary=x", "application/x-ndjson"],
)
async def test_other_media_types(service: Any, content_type: str) -> None:
    status, answer, _ = await service.request("POST", "/translate", data=body(), headers={"Content-Type": content_type})
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/vnd.api+json", 200),
        ("application/json; charset=latin-1", 415),
    ],
)
async def test_media_types_of_json(service: Any, content_type: str, expected: int) -> None:
    status, _, _ = await service.request("POST", "/translate", data=body(), headers={"Content-Type": content_type})
    assert status == expected


async def test_compressed_bodies(service: Any) -> None:
    for encoding, content in (("gzip", gzip.compress(body())), ("deflate", zlib.compress(body()))):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        status, answer, _ = await service.request("POST", "/translate", data=content, headers=headers)
        assert (status, answer["translated_text"]) == (200, GOOD["text"])


async def test_compressed_bodies_of_less_usual_forms(service: Any) -> None:
    """Several gzip members are one gzip file; `deflate` often comes without the header that it should have."""
    headless = zlib.compressobj(wbits=-15)
    members = gzip.compress(body()[:10]) + gzip.compress(body()[10:])
    for encoding, content in (("gzip", members), ("deflate", headless.compress(body()) + headless.flush())):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        status, answer, _ = await service.request("POST", "/translate", data=content, headers=headers)
        assert (status, answer["translated_text"]) == (200, GOOD["text"])


async def test_a_byte_order_mark_means_nothing(service: Any) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await service.request("POST", "/translate", data=b"\xef\xbb\xbf" + body(), headers=headers)
    assert (status, answer["translated_text"]) == (200, GOOD["text"])


@pytest.mark.parametrize("num_members", [1, 50])
async def test_a_compression_bomb_is_too_large(service: Any, num_members: int) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    bomb = gzip.compress(b" " * ((200 << 20) // num_members), compresslevel=9) * num_members
    status, answer, _ = await service.request("POST", "/translate", data=bomb, headers=headers)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("gzip", b"not gzip at all", 400),
        ("gzip", gzip.compress(b"{}" * 500)[:-9], 400),
        ("gzip", gzip.compress(b"{}") + b"x", 400),
        ("gzip", gzip.compress(b"") * 1000, 400),
        ("deflate", b"", 400),
        ("deflate", b"not deflate at all", 400),
        ("br", b"x", 415),
        ("zstd", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
)
async def test_bad_content_encodings(service: Any, encoding: str, content: bytes, status: int) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    got, answer, _ = await service.request("POST", "/translate", data=content, headers=headers)
    assert got == status
    assert answer["error"]["code"] in ("invalid_value", "unsupported_media_type", "invalid_json")


async def test_a_chunked_body_is_cut_off_at_the_limit(service: Any) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 65536

    status, answer, response = await service.request("POST", "/translate", data=endless(), headers=JSON)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert response.headers["Connection"] == "close"


async def raw(port: int, content: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes as they are; status, headers and JSON of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    await writer.drain()
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    payload = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 30)
    if writer.can_write_eof():
        writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 30) == b""  # one answer, then the end
    writer.close()
    return int(first.split()[1]), headers, json.loads(payload)


@pytest.mark.parametrize(
    "content",
    [
        b"HELLO\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_malformed_http(service: Any, content: bytes) -> None:
    status, headers, answer = await raw(service.port, content)
    assert status == 400
    assert answer["error"]["code"] == "invalid_value"
    assert answer["error"]["request_id"] == headers["x-request-id"]


async def test_a_malformed_chunk(service: Any) -> None:
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
    status, _, answer = await raw(service.port, head)
    assert (status, answer["error"]["code"]) == (400, "invalid_value")


async def test_an_unknown_expectation(service: Any) -> None:
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nContent-Length: 0\r\n\r\n"
    status, _, answer = await raw(service.port, head)
    assert status == 417
    assert answer["error"]["code"]


async def test_a_slow_body(start_service: Any) -> None:
    service = await start_service(body_timeout_s=0.2)
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    status, headers, answer = await raw(service.port, head)
    assert (status, answer["error"]["code"]) == (408, "body_timeout")
    assert headers["connection"] == "close"


async def test_content_length_beyond_the_limit_is_refused_unread(service: Any) -> None:
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    status, headers, answer = await raw(service.port, head)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert headers["connection"] == "close"
