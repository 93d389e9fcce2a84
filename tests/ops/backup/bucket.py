"""As much of S3 as restic asks for, in memory: one bucket of any name. It checks who signs, not the signatures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Tue, 24 Nov 2026 02:00:00 GMT"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    access_key: str

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "location" in query:
            self._answer(200, b"<LocationConstraint></LocationConstraint>")
        elif "list-type" in query:
            self._answer(200, self._listing(query).encode())
        else:
            self._object()

    def do_HEAD(self) -> None:
        self._object()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "STREAMING" in self.headers.get("x-amz-content-sha256", ""):
            body = b"".join(_chunks(body))
        self.objects[self._key] = body
        self._answer(200, b"")

    def do_DELETE(self) -> None:
        self.objects.pop(self._key, None)
        self._answer(204, b"")

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _object(self) -> None:
        content = self.objects.get(self._key) if self._key else b""
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            self._answer(206, content[int(first) : int(last) + 1 if last else None])
        else:
            self._answer(200, content)

    def _listing(self, query: dict[str, list[str]]) -> str:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys, folders = [], set()
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if cut:
                folders.add(prefix + head + cut)
            else:
                keys.append(key)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>x</ETag>"
            "<LastModified>2026-11-24T02:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(it)}</Prefix></CommonPrefixes>" for it in sorted(folders))
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"

    def _answer(self, status: int, body: bytes) -> None:
        if f"Credential={self.access_key}/" not in self.headers.get("Authorization", ""):
            status, body = 403, b"<Error><Code>AccessDenied</Code></Error>"
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "ETag": '"x"', "Last-Modified": _DATE}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _chunks(body: bytes) -> Iterator[bytes]:
    """What is in a body that was signed piece by piece: `<hex length>;chunk-signature=…`, the piece, and so on."""
    while body:
        head, _, body = body.partition(b"\r\n")
        length = int(head.partition(b";")[0], 16)
        yield body[:length]
        body = body[length + 2 :]


@contextmanager
def bucket(access_key: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its URL, for restic, and what is in it."""
    objects: dict[str, bytes] = {}
    handler = type("Handler", (_Handler,), {"objects": objects, "access_key": access_key})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"s3:http://127.0.0.1:{server.server_port}/nllbd-backups/web1", objects
        finally:
            server.shutdown()
            thread.join()
