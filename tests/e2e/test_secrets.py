"""One daemon's whole life with planted secrets and texts: none of them is in anything that it printed, answered where
it should not, wrote to disk in clear, or showed to other users of the machine.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest

from bench.ports import free_port

WITHIN_S = 60.0
API_KEY = "plantedApiKey-5Kq8"
JWT_SECRET = "plantedJwtSecret-0f3e1c-long-enough-to-be-good"
TEXT = "Schmetterlingsflügel plantedText"
WRONG_KEY = "plantedWrongKey-77aa"


class Run:
    """A daemon with secrets in its environment, its port, and everything that it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {
            "HOME": str(folder),
            "API_KEY": API_KEY,
            "JWT_SECRET": JWT_SECRET,
            "LOG_LEVEL": "DEBUG",
            "RATE_LIMIT_PER_MINUTE": "100000",
        }
        flags = ["--runner", "fake", "--port", str(self.ports[0]), "--metrics-port", str(self.ports[1])]
        self.log = folder / "log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nllbd", "serve", *flags], stdout=stream, stderr=stream, env=self.environ
            )

    def ask(self, method: str, path: str, body: Any = None, port: int = 0, **headers: str) -> tuple[int, bytes]:
        """Status and everything else that came back, headers included."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.ports[port]), timeout=WITHIN_S) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return int(answer.split()[1]) if answer else 0, answer

    def wait_for(self, what: str) -> None:
        end = time.monotonic() + WITHIN_S
        while what not in self.log.read_text(errors="replace"):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, what
            time.sleep(0.05)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    run.wait_for('"event":"ready"')
    yield run
    run.process.kill()
    run.process.wait()


def nllbd(run: Run, *arguments: str) -> str:
    command = [sys.executable, "-m", "nllbd", *arguments]
    return subprocess.run(command, env=run.environ, capture_output=True, text=True, check=True, timeout=WITHIN_S).stdout


def test_nothing_secret_is_told(run: Run) -> None:
    created = nllbd(run, "keys", "create", "tester")
    (stored,) = [word for word in created.split() if word.startswith("nllbd_")]
    job = {"text": TEXT, "source_lang": "en", "target_lang": "fr"}
    secrets = {API_KEY, JWT_SECRET, WRONG_KEY, stored}
    told: list[bytes] = []

    for key in (API_KEY, stored):
        status, _ = run.ask("POST", "/translate", job, X_API_Key=key)
        assert status == 200
        status, answer = run.ask("POST", "/auth/token", Authorization=f"Bearer {key}")
        assert status == 200
        session = json.loads(answer.partition(b"\r\n\r\n")[2])["access_token"]
        secrets.add(session)
        assert run.ask("POST", "/translate", {**job, "stream": True}, Authorization=f"Bearer {session}")[0] == 200
    token = jwt.encode({"sub": "alice", "exp": time.time() - 60}, JWT_SECRET, algorithm="HS256")
    secrets.add(token)
    told += [
        run.ask("POST", "/translate", job, X_API_Key=WRONG_KEY)[1],
        run.ask("POST", "/translate", job, Authorization=f"Bearer {token}")[1],
        run.ask("POST", "/translate", job, Authorization=f"Basic {base64.b64encode(API_KEY.encode()).decode()}")[1],
        run.ask("POST", "/translate", job, X_API_Key=API_KEY, Authorization=f"Bearer {WRONG_KEY}")[1],
        run.ask("GET", f"/v2/usage?key={API_KEY}")[1],
        run.ask("GET", f"/language/translate/v2?key={WRONG_KEY}&q={TEXT.split()[1]}&target=fr")[1],
        run.ask("GET", f"/{API_KEY}/{TEXT.split()[1]}")[1],
        run.ask("DELETE", f"/auth/token/{WRONG_KEY}", X_API_Key=API_KEY)[1],
        run.ask("POST", "/translate", f'{{"text": "{TEXT}'.encode(), X_API_Key=API_KEY)[1],
        run.ask("POST", "/translate", {"q": TEXT, "source": "en", "target": "fr", "api_key": WRONG_KEY})[1],
        run.ask("GET", "/debug/engine", X_API_Key=API_KEY)[1],
        run.ask(WRONG_KEY, "/translate")[1],
        run.ask("GET", "/health")[1],
        run.ask("GET", "/metrics", port=1)[1],
        run.ask("GET", "/version", **{f"X-{WRONG_KEY}": "1", "Cookie": f"s={API_KEY}"})[1],
    ]
    run.process.send_signal(signal.SIGHUP)
    run.wait_for('"event":"settings reloaded"')
    processes = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
    told += ["\0".join(process.cmdline()).encode() for process in processes]
    told += [nllbd(run, "config", "show").encode(), nllbd(run, "keys", "list").encode()]
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(WITHIN_S) == 0
    told.append(run.log.read_bytes())
    told += [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]

    assert b'"route":"/translate"' in run.log.read_bytes()
    for secret in secrets:
        for form in (secret.encode(), base64.b64encode(secret.encode())):
            assert not [text for text in told if form in text], f"{secret[:12]}… was told"
    for word in TEXT.split():
        assert not [text for text in told if word.encode() in text], f"{word} was told"


@pytest.mark.parametrize("folder", ["journal", "database"])
def test_what_is_on_disk_is_only_the_daemon_s_to_read(run: Run, folder: str) -> None:
    """Digests of keys and who used how much are nobody else's business."""
    wanted = {"journal": "usage", "database": "nllbd.db"}[folder]
    (found,) = (path for path in run.folder.rglob(wanted))
    assert found.stat().st_mode & 0o077 == 0 or found.parent.stat().st_mode & 0o077 == 0
