"""Ask a daemon, a Prometheus or an Alertmanager over HTTP, with the standard library's client and a time limit."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from nllbd.config import Settings
from nllbd.errors import ConfigError, NotReady

_TIMEOUT_S = 15.0
_PREFERRED = ("eng_Latn", "fra_Latn")
SMOKE_TEXT = "Good morning."


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises NotReady for what is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise NotReady(f"answered {self.status} with something that is no JSON") from None


@dataclass(frozen=True, slots=True)
class Server:
    """`url`: http://host:port, https://host or unix:/path. `key` goes along as X-API-Key; it is shown nowhere."""

    url: str
    key: str = ""
    timeout_s: float = _TIMEOUT_S

    def __repr__(self) -> str:
        return f"Server({self.url!r})"

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any) -> Answer:
        return self.ask("POST", path, json.dumps(body).encode())

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Raises NotReady when nobody answers."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.key:
            headers["X-API-Key"] = self.key
        parts = _parts(self.url)
        prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        try:
            with closing(_connection(parts, self.timeout_s)) as connection:
                connection.request(method, prefix + path, body, headers)
                answer = connection.getresponse()
                return Answer(answer.status, dict(answer.headers), answer.read())
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotReady(f"cannot reach {self.url}: {reason}") from None


@dataclass(frozen=True, slots=True)
class Smoke:
    """A translation that was asked for to see that it works."""

    source: str
    target: str
    text: str
    translation: str
    model: str


def smoke_translation(server: Server) -> Smoke:
    """One short translation, English to French where the model has both. Raises NotReady saying what came instead."""
    answer = server.get("/languages")
    if answer.status != 200:
        raise NotReady(f"{server.url}/languages answered {answer.status}")
    codes = [it["flores"] for it in answer.json()]
    source, target = _PREFERRED if set(_PREFERRED) <= set(codes) else (codes[0], codes[-1])
    body = {"text": SMOKE_TEXT, "source_lang": source, "target_lang": target}
    answer = server.post("/translate", body)
    found = answer.json()
    if answer.status == 401:
        hint = "a key for checks belongs into /etc/nllbd/credentials/check_key (nllbd keys create checks)"
        raise NotReady(f"{server.url}/translate wants a key that is good: {hint}")
    if answer.status != 200:
        raise NotReady(f"{server.url}/translate answered {answer.status}: {found.get('error', {}).get('code')}")
    if not found["translated_text"].strip():
        raise NotReady(f"{server.url}/translate answered with an empty translation")
    return Smoke(source, target, SMOKE_TEXT, found["translated_text"], found["model"])


def api_url(settings: Settings) -> str:
    """Where the daemon with these settings is asked from its own host."""
    return _base_url(settings.host, settings.port)


def metrics_url(settings: Settings) -> str:
    return _base_url(settings.metrics_host, settings.metrics_port)


def _base_url(host: str, port: int) -> str:
    if host.startswith("unix:"):
        return host
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "unix") and (parts.path if parts.scheme == "unix" else parts.hostname):
            return parts
    except ValueError:
        pass
    raise ConfigError(f"{url!r}: expected http://HOST:PORT, https://HOST or unix:/path")


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    if parts.scheme == "unix":
        return _UnixConnection(parts.path, timeout_s)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
