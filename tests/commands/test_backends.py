from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nllbd.commands.backends import Ask, LocalBackend, RemoteBackend, Translated, open_backend
from nllbd.config import Settings
from nllbd.errors import InvalidValue, NllbdError, NotReady, UnsupportedPair

Serve = Callable[[int, bytes], str]


class _UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0


@pytest.fixture
def asked() -> list[tuple[str, dict[str, str], Any]]:
    """(path, headers, body) of each request that the stand-in for a daemon got."""
    return []


@pytest.fixture
def serve(asked: list[Any], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`serve(status, body)` starts a stand-in that always answers so, and returns its URL."""
    servers: list[HTTPServer] = []

    def start(status: int, body: bytes, *, unix: bool = False) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                asked.append((self.path, dict(self.headers), json.loads(content)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

            def address_string(self) -> str:
                return "-"

        path = tmp_path / "n.sock"
        server = _UnixServer(str(path), Handler) if unix else HTTPServer(("127.0.0.1", 0), Handler)  # type: ignore[arg-type]
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"unix:{path}" if unix else f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(*texts: str) -> bytes:
    return json.dumps({"translations": [{"text": text, "warnings": ["w"]} for text in texts]}).encode()


@pytest.mark.parametrize("unix", [False, True])
async def test_a_daemon_is_asked_once_a_group(serve: Callable[..., str], asked: list[Any], unix: bool) -> None:
    backend = RemoteBackend(serve(200, answer("A", "B"), unix=unix), "key")
    assert await backend.translate(["a", "b"], Ask("fr", num_beams=2)) == [
        Translated("A", ("w",)),
        Translated("B", ("w",)),
    ]
    [(path, headers, body)] = asked
    assert path == "/translate"
    assert headers["X-API-Key"] == "key"
    assert body == {"text": ["a", "b"], "source_lang": "auto", "target_lang": "fr", "num_beams": 2}


async def test_a_key_goes_as_utf_8_or_is_refused(serve: Callable[..., str], asked: list[Any]) -> None:
    url = serve(200, json.dumps({"translations": [{"text": "Bonjour", "warnings": []}]}).encode())
    async with RemoteBackend(url, "clé-ключ") as backend:
        await backend.translate(["Hello"], Ask(source="en", target="fr"))
    assert asked[0][1]["X-API-Key"].encode("latin-1").decode() == "clé-ключ"
    with pytest.raises(InvalidValue, match="no header can carry"):
        RemoteBackend(url, "two\nlines")


async def test_a_path_before_translate_is_kept(serve: Callable[..., str], asked: list[Any]) -> None:
    await RemoteBackend(serve(200, answer("A")) + "/api/", None).translate(["a"], Ask("fr", "en"))
    assert asked[0][0] == "/api/translate"
    assert "X-API-Key" not in asked[0][1]


async def test_a_daemons_refusal_is_told(serve: Callable[..., str]) -> None:
    body = {"error": {"code": "unknown_language", "message": "no such", "field": "target_lang", "request_id": "1"}}
    url = serve(400, json.dumps(body).encode())
    with pytest.raises(NllbdError, match=r"answered 400 unknown_language: no such \(target_lang\)"):
        await RemoteBackend(url, None).translate(["a"], Ask("xx"))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {}}', b"3"])
async def test_what_is_no_nllbd(serve: Callable[..., str], body: bytes) -> None:
    with pytest.raises(NllbdError, match="is that an nllbd"):
        await RemoteBackend(serve(502, body), None).translate(["a"], Ask("fr"))


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"translations": 3}', b'{"translations": [{}]}', answer()])
async def test_a_wrong_answer_with_status_200(serve: Callable[..., str], body: bytes) -> None:
    with pytest.raises(NllbdError, match="is that an nllbd"):
        await RemoteBackend(serve(200, body), None).translate(["a"], Ask("fr"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix:/nowhere/n.sock", "http://name.invalid"])
async def test_nobody_there(url: str) -> None:
    with pytest.raises(NotReady, match="is the daemon running there"):
        await RemoteBackend(url, None).translate(["a"], Ask("fr"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "", "http://[x", "http://x:port"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidValue, match="expected http://"):
        open_backend(Settings(), url)


async def test_in_this_process_with_the_echo_engine() -> None:
    """Without a daemon's limits: one text far beyond max_request_size."""
    text = "A sentence. " * 50
    async with LocalBackend(Settings(runner="fake", max_request_size=10, max_texts=1)) as backend:
        answers = await backend.translate([text, "", "Two"], Ask("fra_Latn", "en"))
    assert [it.text for it in answers] == [text, "", "Two"]


async def test_errors_of_the_job_come_through() -> None:
    async with LocalBackend(Settings(runner="fake")) as backend:
        with pytest.raises(UnsupportedPair):
            await backend.translate(["x"], Ask("ita_Latn", "en"))
