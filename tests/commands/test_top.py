"""`nllbd top` against a running service: once, as JSON, on a terminal, and when it is told nonsense."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nllbd import cli
from nllbd.commands.backends import base_url
from nllbd.http import context as http_context
from nllbd.principal import Principal, Scope

ADMIN = Principal(id="key:boss", scopes=frozenset({Scope.TRANSLATE, Scope.ADMIN}))
WITHIN_S = 60.0


async def call(service: Any, *flags: str) -> int:
    """`nllbd top` in this process, pointed at the service."""
    urls = ("--metrics-url", f"http://127.0.0.1:{service.metrics_port}", "--url", service.url)
    return await asyncio.to_thread(cli.main, ["top", *urls, "--interval", "0.2", *flags])


async def test_once_and_as_json(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    await service.translate("Hello there.")
    assert await call(service, "--once") == 0
    text = capsys.readouterr().out
    assert "ready" in text
    assert "lanes" in text
    assert max(map(len, text.splitlines())) <= 80
    assert await call(service, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["state"], told["accounts"]) == ("demo", "ready", None)


async def test_with_a_key_it_names_the_busiest(
    service: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(http_context, "stranger", lambda address: ADMIN)
    await service.translate("Hello there.")
    key = tmp_path / "key"
    key.write_text("whatever\n")
    assert await call(service, "--json", "--key-file", str(key)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accounts"][0]["account"] == "key:boss"
    assert told["max_lanes"] > 0
    assert await call(service, "--once", "--key-file", str(key)) == 0
    assert "key:boss" in capsys.readouterr().out


async def test_on_a_terminal_until_ctrl_c(service: Any) -> None:
    flags = ["--metrics-url", f"http://127.0.0.1:{service.metrics_port}", "--url", service.url, "--interval", "0.2"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "nllbd", "top", *flags])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = await asyncio.to_thread(read_until, terminal, b"sequences")
    assert b"\x1b[?1049h" in shown  # a screen of its own: what was there comes back
    os.kill(pid, signal.SIGINT)
    assert b"\x1b[?1049l" in await asyncio.to_thread(read_until, terminal, b"\x1b[?1049l")
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    os.close(terminal)


def read_until(terminal: int, expected: bytes) -> bytes:
    end, data = time.monotonic() + WITHIN_S, b""
    while expected not in data:
        assert time.monotonic() < end, data
        if select.select([terminal], [], [], 0.1)[0]:
            data += os.read(terminal, 65536)
    return data


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--metrics-url", "http://127.0.0.1:1"), "cannot reach http://127.0.0.1:1"),
        (("--metrics-url", "gopher://x"), "expected http"),
        (("--interval", "0"), "at least 0.2"),
        (("--interval", "nan"), "at least 0.2"),
        (("--key-file", "/nowhere/key"), "cannot read /nowhere/key"),
    ],
)
def test_nonsense_is_one_line(flags: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--once", *flags]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


async def test_something_else_answers_for_the_api(
    service: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A proxy's page, say: the figures are there, the busiest keys are not."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *_: object) -> None:
            return

    (tmp_path / "key").write_text("ключ")
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        flags = ("--url", f"http://127.0.0.1:{server.server_port}", "--key-file", str(tmp_path / "key"))
        assert await call(service, "--json", *flags) == 0
        server.shutdown()
    assert json.loads(capsys.readouterr().out)["accounts"] is None


async def test_something_else_listens_there(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code = await asyncio.to_thread(cli.main, ["top", "--json", "--metrics-url", f"{service.url}/health"])
    assert code == 1
    assert "not as an nllbd's /metrics does" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::1", "http://[::1]:9000"),
        ("::", "http://[::1]:9000"),
        ("unix:/run/m", "unix:/run/m"),
    ],
)
def test_a_listening_address_as_one_to_connect_to(host: str, expected: str) -> None:
    assert base_url(host, 9000) == expected
