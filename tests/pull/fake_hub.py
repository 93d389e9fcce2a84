"""A model hub on this machine: Hugging Face's protocol as far as a pull needs it, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BIG = 1_000_000  # larger files are in "LFS": with a SHA-256, others only with git's name


@dataclass
class FakeHub:
    """Serves `files` as the model `model_id`. The attributes are faults and may be changed while it runs."""

    files: dict[str, bytes]
    model_id: str = "someone/tiny-nllb"
    licence: str | None = "cc-by-nc-4.0"
    commit: str = COMMIT
    token: str | None = None
    cut_after: list[int] = field(default_factory=list)  # one answer each: that many bytes, then the connection breaks
    corrupt: set[str] = field(default_factory=set)
    ranges: bool = True
    fail_status: int | None = None
    elsewhere: FakeHub | None = None  # big files come from there, as from a CDN
    gate: threading.Event | None = None  # big files wait for it after their first half
    address: str = "127.0.0.1"
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    credentials: list[str | None] = field(default_factory=list)
    served: int = 0

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((self.address, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://{self.address}:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Any) -> None:
        path = urlsplit(request.path).path
        self.requests.append((path, request.headers.get("Range")))
        self.credentials.append(request.headers.get("Authorization"))
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            self._refuse(request, 401, "RepoNotFound")
        elif path.startswith(f"/api/models/{self.model_id}"):
            self._send(request, 200, json.dumps(self._info()).encode(), {"Content-Type": "application/json"})
        elif found := re.fullmatch(rf"/{re.escape(self.model_id)}/resolve/{self.commit}/(.+)", path):
            self._send_file(request, found[1])
        else:
            self._refuse(request, 404, "RepoNotFound")

    def _info(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
            if len(content) > BIG:
                digest = hashlib.sha256(content).hexdigest()
                about["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
            siblings.append(about)
        card = {"license": self.licence} if self.licence else {}
        return {"id": self.model_id, "sha": self.commit, "siblings": siblings, "cardData": card, "tags": []}

    def _send_file(self, request: Any, name: str) -> None:
        if self.fail_status is not None:
            self._refuse(request, self.fail_status, "Oops")
            return
        content = self.files[name]
        if self.elsewhere is not None and len(content) > BIG:
            self._send(request, 302, b"", {"Location": self.elsewhere.url + request.path})
            return
        if name in self.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin = int(asked[1]) if asked and self.ranges else 0
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        self._send(request, 206 if begin else 200, content[begin:], headers, is_big=len(content) > BIG)

    def _send(self, request: Any, status: int, body: bytes, headers: dict[str, str], *, is_big: bool = False) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        most = self.cut_after.pop(0) if is_big and self.cut_after else len(body)
        try:
            if is_big and self.gate is not None:
                half = min(most, len(body) // 2)
                request.wfile.write(body[:half])
                self.gate.wait(60)
                request.wfile.write(body[half:most])
            else:
                request.wfile.write(body[:most])
            self.served += min(most, len(body)) if is_big else 0
        except OSError:
            request.close_connection = True
        if most < len(body):
            request.close_connection = True

    def _refuse(self, request: Any, status: int, code: str) -> None:
        self._send(request, status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})


def files_of(folder: Path) -> dict[str, bytes]:
    """What a hub would have of a model folder, and some files that nobody needs."""
    names = ("config.json", "generation_config.json", "tokenizer_config.json", "languages.json")
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    for name in ("sentencepiece.bpe.model", "model.safetensors"):
        files[name] = (folder / name).read_bytes()
    return files | {"README.md": b"# A model", "flax_model.msgpack": b"x" * 10, "../evil.json": b"{}"}
