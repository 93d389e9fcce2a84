"""`nllbd health` against a running service, one that is away, and one that is something else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from nllbd import cli


async def call(*arguments: str) -> int:
    return await asyncio.to_thread(cli.main, ["health", *arguments])


async def test_a_daemon_that_serves(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert await call("--url", service.url) == 0
    assert capsys.readouterr().out == f"{service.url} is ready\n"
    assert await call("--url", service.url, "--live") == 0
    assert capsys.readouterr().out == f"{service.url} is alive\n"


async def test_the_daemon_of_the_settings(
    service: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    assert host == "127.0.0.1"
    monkeypatch.setenv("NLLBD_HOST", "0.0.0.0")
    monkeypatch.setenv("NLLBD_PORT", port)
    assert await call() == 0
    assert "ready" in capsys.readouterr().out


async def test_what_answers_is_something_else(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert await call("--url", f"{service.url}/nowhere") == 1
    assert "answered 404" in capsys.readouterr().err


def test_nothing_listens_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["health", "--url", "http://127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert "cannot reach http://127.0.0.1:1" in error
    assert error.count("\n") == 1


def test_it_starts_fast() -> None:
    """A health check that runs each few seconds must not load what a daemon needs."""
    heavy = {"torch", "aiohttp", "uvloop", "sqlalchemy", "redis", "numpy", "rich"}
    code = (
        "import sys; from nllbd import cli; code = cli.main(['health', '--url', 'http://127.0.0.1:1']); "
        f"print(code, sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"
