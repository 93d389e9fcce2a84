"""A web server that keeps what is posted to it: it stands for a pager, Elasticsearch and Loki. Standard library only.

    python receiver.py FOLDER PORT [PORT …]

Each body becomes a line of FOLDER/received: its port, path and text. While FOLDER/refuse exists, it answers 503.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    lock = threading.Lock()

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        if (self.folder / "refuse").exists():
            self._answer(503)
            return
        record = {"port": self.server.server_address[1], "path": self.path, "body": body.decode()}
        record["headers"] = {name.lower(): value for name, value in self.headers.items()}
        with self.lock, (self.folder / "received").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._answer(204 if "loki" in self.path else 200)

    def _answer(self, status: int) -> None:
        body = b"" if status == 204 else b'{"errors":false,"items":[]}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    Handler.folder.mkdir(parents=True, exist_ok=True)
    servers = [ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) for port in sys.argv[2:]]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
