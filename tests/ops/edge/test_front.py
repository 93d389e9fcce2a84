"""Both load balancers as they are shipped, in front of real daemons: what one caller sees. The same test for both."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from tests.ops.edge.conftest import FRONTS, TEXT, Front
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import eventually

pytestmark = pytest.mark.ops

HEADERS = {
    "strict-transport-security": "max-age=63072000",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
}
#: DeepL's, Google's, Azure's, nllb-api's and the pages' own paths.
DIALECTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/translate", {"json": TEXT}),
    ("POST", "/translate", {"json": {"q": "It is raining.", "source": "en", "target": "fr"}}),
    ("POST", "/v2/translate", {"json": {"text": ["It is raining."], "target_lang": "FR", "source_lang": "EN"}}),
    ("POST", "/language/translate/v2", {"json": {"q": "It is raining.", "source": "en", "target": "fr"}}),
    ("POST", "/translate?api-version=3.0&from=en&to=fr", {"json": [{"Text": "It is raining."}]}),
    ("GET", "/api/v4/translator?text=It+is+raining.&source=eng_Latn&target=fra_Latn", {}),
    ("GET", "/languages", {}),
    ("GET", "/docs", {}),
    ("GET", "/openapi.json", {}),
    ("GET", "/", {}),
]
HIDDEN = (
    "/metrics",
    "/debug/engine",
    "/debug%2Fengine",
    "//debug/engine",
    "/.git/config",
    "/.env",
    "/static/.env",
    "/x/.svn/entries",
    "/%2egit/config",
    "/backup.sql",
    "/wp-login.php",
    "/config.yaml",
)


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest, start_front: Callable[..., Front], one: Daemon, two: Daemon) -> Front:
    return start_front(request.param, [one, two])


@pytest.fixture(scope="module")
def client(front: Front, client_of: Callable[..., httpx.Client]) -> httpx.Client:
    return client_of(front)


@pytest.mark.parametrize(("method", "path", "options"), DIALECTS, ids=lambda value: str(value)[:40])
def test_every_dialect_passes(client: httpx.Client, method: str, path: str, options: dict[str, Any]) -> None:
    answer = client.request(method, path, **options)
    assert answer.status_code == 200, answer.text


def test_a_request_is_joined_by_its_id(client: httpx.Client, front: Front, one: Daemon, two: Daemon) -> None:
    mine = f"order-{time.monotonic_ns()}"
    kept = client.post("/translate", json=TEXT, headers={"X-Request-Id": mine})
    made = client.post("/translate", json=TEXT, headers={"X-Request-Id": 'no "sane" id'})
    assert kept.headers["x-request-id"] == mine
    for request_id in (mine, made.headers["x-request-id"]):
        (line,) = eventually(partial(rows_of, front.access_log, request_id))
        (of_daemon,) = eventually(partial(rows_of, lambda: one.log_records() + two.log_records(), request_id))
        assert (line["status"], line["path"], line["method"]) == (200, "/translate", "POST")
        assert of_daemon["client"] == line["client"] == "127.0.0.1"


def test_no_text_and_no_key_is_logged(client: httpx.Client, front: Front) -> None:
    marker = f"marker{time.monotonic_ns()}"
    before = len(front.access_log())
    client.get(f"/api/v4/translator?text=secret+text&source=eng_Latn&target=fra_Latn&key=sesame&n={marker}")
    client.get(f"/.env?text=secret+text&key=sesame&n={marker}")
    client.post("/translate", json={**TEXT, "text": "secret text"}, headers={"Authorization": "Bearer sesame"})
    eventually(lambda: len(front.access_log()) >= before + 3)
    logged = json.dumps(front.access_log()) + front.error_log()
    assert not [word for word in ("secret", "sesame", marker) if word in logged]


@pytest.mark.parametrize("path", HIDDEN)
def test_what_nobody_outside_may_see_is_not_there(front: Front, path: str) -> None:
    status, headers, body = raw_get(front, path)
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"
    assert headers["x-request-id"] == json.loads(body)["error"]["request_id"]


@pytest.mark.parametrize(("method", "path"), [("CONNECT", "localhost:443"), ("TRACE", "/languages")])
def test_nothing_is_tunnelled_and_nothing_echoed(front: Front, method: str, path: str) -> None:
    status, headers, _ = raw_get(front, path, method)
    assert status in (400, 405)
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/health", {}, 200),
        ("GET", "/", {}, 200),
        ("POST", "/translate", {"json": TEXT}, 200),
        ("POST", "/translate", {"json": {"text": ""}}, 400),
        ("GET", "/.git/config", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("POST", "/translate", {"content": b"x" * (1 << 20) + b"x"}, 413),
    ],
)
def test_security_headers_are_on_every_answer_once(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = client.request(method, path, **options)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], name
    assert len(answer.headers.get_list("content-security-policy")) == 1
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_a_body_that_is_too_large_is_refused_as_json(client: httpx.Client) -> None:
    answer = client.post("/v2/translate", content=b"x" * (2 << 20))
    assert answer.status_code == 413
    assert "larger" in answer.json()["message"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_http2_is_spoken_and_old_tls_is_not(front: Front) -> None:
    assert negotiate(front, ["h2", "http/1.1"]) == ("h2", "TLSv1.3")
    context = ssl.create_default_context(cafile=str(front.cafile))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert negotiate(front, ["http/1.1"], context) == ("http/1.1", "TLSv1.2")
    context = ssl.create_default_context(cafile=str(front.cafile))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        negotiate(front, ["http/1.1"], context)


def test_a_session_is_resumed(front: Front) -> None:
    """Without tickets: from the cache that all workers share."""
    context = ssl.create_default_context(cafile=str(front.cafile))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session = None
    for was_known in (False, True, True):
        with (
            socket.create_connection(("127.0.0.1", front.https_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            assert connection.session_reused is was_known
            session = connection.session
    assert session is not None
    assert not session.has_ticket


def test_who_asks_for_another_name_gets_no_certificate(front: Front) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        negotiate(front, ["http/1.1"], name="elsewhere.example.test")


def test_plain_http_sends_browsers_on_and_refuses_programs(front: Front) -> None:
    sent_on = httpx.get(f"{front.http_url}/docs?x=1")
    assert sent_on.status_code == 308
    assert sent_on.headers["location"].startswith("https://")
    assert sent_on.headers["location"].endswith("/docs?x=1")
    refused = httpx.post(f"{front.http_url}/translate", json=TEXT)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "forbidden"


def test_the_state_is_for_this_host(front: Front) -> None:
    assert httpx.get(f"{front.status_url}/edge").status_code == 200
    assert httpx.get(f"{front.status_url}/readyz").status_code == 200
    assert httpx.get(f"{front.status_url}/translate").status_code == 404


def test_health_is_not_logged(client: httpx.Client, front: Front) -> None:
    for path in ("/health", "/livez", "/readyz"):
        assert client.get(path).status_code == 200
    client.get("/version", headers={"X-Request-Id": "after-health"})
    eventually(lambda: any(row["request_id"] == "after-health" for row in front.access_log()))
    assert not [row for row in front.access_log() if row["path"] in ("/health", "/livez", "/readyz")]


def test_maintenance_is_a_page_for_people_and_json_for_programs(client: httpx.Client, front: Front) -> None:
    front.upstream("maintenance", "on")
    try:
        refused = client.post("/v2/translate", json={"text": ["a"], "target_lang": "FR"})
        page = client.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
        health = client.get("/health")
    finally:
        front.upstream("maintenance", "off")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "300")
    assert "message" in refused.json()
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (503, "text/html")
    assert "maintained" in page.text
    for answer in (refused, page):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert health.status_code == 200
    assert client.post("/translate", json=TEXT).status_code == 200


def rows_of(read: Callable[[], list[dict[str, Any]]], request_id: str) -> list[dict[str, Any]]:
    return [row for row in read() if row.get("request_id") == request_id]


def raw_get(front: Front, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """A request with the path as it is: clients would tidy it up."""
    context = ssl.create_default_context(cafile=str(front.cafile))
    with (
        socket.create_connection(("127.0.0.1", front.https_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def negotiate(
    front: Front, protocols: list[str], context: ssl.SSLContext | None = None, name: str = "localhost"
) -> tuple[str | None, str | None]:
    """What ALPN and TLS agree on."""
    context = context or ssl.create_default_context(cafile=str(front.cafile))
    context.set_alpn_protocols(protocols)
    with (
        socket.create_connection(("127.0.0.1", front.https_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.selected_alpn_protocol(), connection.version()
