"""Servers that behave as daemons do at their worst, for tests of a single directive of nginx."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Stub:
    """An HTTP/1.1 server that answers everything with `status`, or breaks off (`status=None`).

    Attributes:
        num_requests, num_connections: so far.
        connection_headers: the Connection header of each request.
    """

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.num_requests = self.num_connections = 0
        self.connection_headers: list[str | None] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Stub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            stub.num_connections += 1

        def do_GET(self) -> None:
            stub.num_requests += 1
            stub.connection_headers.append(self.headers.get("Connection"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if stub.status is None:
                self.close_connection = True
                return
            body = b"{}"
            self.send_response(stub.status)
            self.send_header("Content-Length", str(len(body)))
            if stub.status == 503:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
