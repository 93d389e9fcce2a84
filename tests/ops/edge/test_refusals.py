"""What nginx adds to answers that say no, and how it says no itself: to what is hardly HTTP, too."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.ops.edge.stub import Stub
from tests.ops.kit.edge import Edge
from tests.ops.kit.programs import need

pytestmark = pytest.mark.ops


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with Stub(429) as stub:
        yield stub


@pytest.fixture(scope="module")
def edge(stub: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    need("nginx")
    with Edge(tmp_path_factory.mktemp("edge"), [stub.address]) as edge:
        yield edge


def test_a_daemon_that_names_no_time_to_come_back_has_a_reason(edge: Edge) -> None:
    """A quota that is used up: with a time, clients would come back again and again."""
    refused = httpx.get(f"{edge.url}/v2/usage", verify=ssl.create_default_context(cafile=str(edge.cafile)))
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
    assert refused.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("sent", "is_tls", "status"),
    [
        (b"GET /languages HTTP/1.1\r\nHost: localhost\r\n\r\n", False, 400),
        (b"POST /detect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", True, 501),
        (b"GET /languages HTTP/9.1\r\nHost: localhost\r\n\r\n", True, 505),
        (b"GET /languages HTTP/1.1\r\n\r\n", True, 400),
        (b"GET /languages HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n", True, 421),
        (
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            True,
            400,
        ),
    ],
    ids=["plain HTTP on the port of TLS", "unknown coding", "version", "no host", "another host", "two lengths"],
)
def test_what_is_no_proper_http_is_told_as_json(edge: Edge, stub: Stub, sent: bytes, is_tls: bool, status: int) -> None:
    before = stub.num_requests
    with socket.create_connection(("127.0.0.1", edge.https_port), timeout=10) as plain:
        context = ssl.create_default_context(cafile=str(edge.cafile))
        connection = context.wrap_socket(plain, server_hostname="localhost") if is_tls else plain
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, body = received.partition("\r\n\r\n")
    assert head.split()[1] == str(status)
    assert json.loads(body)["error"]["code"] == "invalid_value"
    assert "x-content-type-options: nosniff" in head.lower()
    assert stub.num_requests == before
