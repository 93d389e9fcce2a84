"""What the guide has for nginx, tried out beside what is shipped: deploy/DEVIATIONS.md names these tests."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ops.edge.stub import Stub
from tests.ops.kit.daemons import free_port
from tests.ops.kit.edge import Edge, install
from tests.ops.kit.nginx import Nginx
from tests.ops.kit.programs import need, need_root

FRAME = """\
pid nginx.pid; error_log stderr; worker_processes 1; events {{}}
http {{
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {http}
  server {{ listen 127.0.0.1:{port}{listen}; {server} }}
}}
"""

StartNginx = Callable[..., str]


@pytest.fixture
def guide(tmp_path: Path) -> Iterator[StartNginx]:
    """Factory: nginx with these lines of http and server; gives its URL."""
    need("nginx")
    with contextlib.ExitStack() as stack:

        def start(server: str, http: str = "", listen: str = "") -> str:
            port = free_port()
            (tmp_path / "nginx.conf").write_text(FRAME.format(http=http, server=server, port=port, listen=listen))
            stack.enter_context(Nginx(tmp_path, [port]))
            return f"http{'s' if listen else ''}://127.0.0.1:{port}"

        yield start


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Callable[..., Edge]]:
    """Factory: the shipped edge in front of these stubs."""
    need("nginx")
    with contextlib.ExitStack() as stack:

        def start(*stubs: Stub, unlimited: bool = True) -> Edge:
            folder = tmp_path / "shipped"
            folder.mkdir()
            edge = Edge(folder, [stub.address for stub in stubs], unlimited=unlimited)
            return stack.enter_context(edge)

        yield start


PLAIN = httpx.Client(verify=False, timeout=20)  # no certificates are looked at: plain HTTP only


def ask(edge: Edge, method: str = "POST", path: str = "/translate", **options: Any) -> httpx.Response:
    return clients(edge.cafile).request(method, edge.url + path, **options)


@cache
def clients(cafile: Path) -> httpx.Client:
    """One for each edge: a new one would read all authorities of the system for each request."""
    tls = ssl.create_default_context(cafile=str(cafile))
    return httpx.Client(verify=tls, timeout=20)


def test_limit_req_zone_inside_server_is_refused(tmp_path: Path) -> None:
    need("nginx")
    server = "limit_req_zone $binary_remote_addr zone=api:10m rate=10r/m; limit_req zone=api burst=20 nodelay;"
    (tmp_path / "nginx.conf").write_text(FRAME.format(http="", server=server, port=free_port(), listen=""))
    done = Nginx.check(tmp_path)
    assert done.returncode != 0
    assert '"limit_req_zone" directive is not allowed here' in done.stderr


def test_add_header_is_lost_on_errors_and_where_there_is_another(guide: StartNginx) -> None:
    url = guide(
        "add_header X-Frame-Options DENY;"
        'location /more { add_header X-More 1; return 200 ""; } location /missing { return 404; }'
        'location / { return 200 ""; }'
    )
    assert PLAIN.get(f"{url}/").headers["x-frame-options"] == "DENY"
    assert "x-frame-options" not in PLAIN.get(f"{url}/more").headers
    assert "x-frame-options" not in PLAIN.get(f"{url}/missing").headers


def test_health_inherits_the_servers_limit_and_refusals_are_503(guide: StartNginx) -> None:
    url = guide(
        'limit_req zone=api burst=2 nodelay; location / { return 200 ""; }'
        "location /health { proxy_pass http://127.0.0.1:9; }",
        "limit_req_zone $binary_remote_addr zone=api:1m rate=10r/m;",
    )
    answers = [PLAIN.get(f"{url}/health") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [502, 502, 502, 503]
    assert "retry-after" not in answers[-1].headers
    assert answers[-1].headers["content-type"] == "text/html"


@pytest.mark.ops
def test_health_is_free_and_refusals_are_429_here(shipped: Callable[..., Edge]) -> None:
    with Stub() as stub:
        edge = shipped(stub, unlimited=False)
        assert {ask(edge, "GET", "/health").status_code for _ in range(30)} == {200}
        answers = [ask(edge) for _ in range(22)]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"] == "6"
    assert answers[-1].json()["error"]["code"] == "rate_limited"


@pytest.mark.ops
def test_keepalive_alone_keeps_no_connection(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    with Stub() as stub, Stub() as ours:
        upstream = f"upstream a {{ server {stub.address}; keepalive 32; }}"
        url = guide("location / { proxy_pass http://a; }", upstream)
        for _ in range(5):
            PLAIN.get(url)
        assert (stub.num_connections, stub.connection_headers) == (5, ["close"] * 5)
        edge = shipped(ours)
        for _ in range(5):
            ask(edge)
        assert ours.num_requests == 5
        assert ours.num_connections <= os.cpu_count()  # type: ignore[operator]  # each worker keeps its own
        assert ours.connection_headers == [None] * 5


def test_the_guides_pattern_lets_git_folders_through(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    url = guide(r'location ~* \.(env|git|svn|htaccess)$ { deny all; return 404; } location / { return 200 "through"; }')
    assert PLAIN.get(f"{url}/.git").status_code == 404
    assert PLAIN.get(f"{url}/.git/config").text == "through"
    assert PLAIN.get(f"{url}/.env.production").text == "through"
    with Stub() as stub:
        edge = shipped(stub)
        assert [ask(edge, "GET", path).status_code for path in ("/.git/config", "/.env.production")] == [404, 404]
        assert stub.num_requests == 0


@pytest.mark.ops
def test_a_draining_daemons_503_reaches_callers_of_the_guide(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    with Stub(503) as draining, Stub(200) as well:
        upstream = f"upstream a {{ least_conn; server {draining.address}; server {well.address}; }}"
        url = guide("location / { proxy_pass http://a; }", upstream)
        assert 503 in [PLAIN.post(url, json={}).status_code for _ in range(4)]
        edge = shipped(draining, well)
        assert [ask(edge).status_code for _ in range(8)] == [200] * 8


@pytest.mark.ops
def test_a_post_that_breaks_off_is_lost_with_the_guide(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    with Stub(None) as dying, Stub(200) as well:
        upstream = f"upstream a {{ least_conn; server {dying.address}; server {well.address}; }}"
        url = guide("location / { proxy_pass http://a; }", upstream)
        assert 502 in [PLAIN.post(url, json={}).status_code for _ in range(4)]
        edge = shipped(dying, well)
        assert [ask(edge).status_code for _ in range(8)] == [200] * 8


@pytest.mark.ops
def test_overload_of_all_daemons_is_not_the_end_of_all(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    """With 503 as a failure and the guide's max_fails alone, all are left alone for 30 s, whatever they could do."""
    with Stub(503) as one, Stub(503) as two:
        lines = "".join(f"server {stub.address} max_fails=3 fail_timeout=30s;" for stub in (one, two))
        retry = "proxy_next_upstream error timeout http_503 non_idempotent;"
        url = guide(f"{retry} location / {{ proxy_pass http://a; }}", f"upstream a {{ least_conn; {lines} }}")
        for _ in range(10):
            PLAIN.post(url, json={})
        edge = shipped(one, two)
        refused = [ask(edge) for _ in range(10)]
        one.status = two.status = 200  # the overload is over
        assert PLAIN.post(url, json={}).status_code == 502
        assert ask(edge).status_code == 200
    assert [answer.status_code for answer in refused] == [503] * 10
    assert {answer.headers["retry-after"] for answer in refused} == {"7"}  # the daemon's own


@pytest.mark.ops
def test_one_subscriber_has_many_addresses(guide: StartNginx, shipped: Callable[..., Edge]) -> None:
    """Limits by the whole IPv6 address: 2^64 buckets for one line."""
    behind = "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;"
    zone = f"limit_req_zone $binary_remote_addr zone=api:1m rate=10r/m; {behind}"
    url = guide(
        'limit_req zone=api burst=2; limit_req_status 429; location / { try_files "" @a; } location @a { return 200; }',
        zone,
    )
    senders = [f"2001:db8:1:2::{number:x}" for number in range(1, 31)]
    assert {PLAIN.get(url, headers={"X-Forwarded-For": sender}).status_code for sender in senders} == {200}
    with Stub() as stub:
        edge = shipped(stub, unlimited=False)
        (edge.folder / "nllbd/site/cdn.conf").write_text("set_real_ip_from 127.0.0.1;\n")
        edge.reload()
        answers = [ask(edge, headers={"X-Forwarded-For": sender}).status_code for sender in senders]
        assert answers.count(429) >= 8
        assert ask(edge, headers={"X-Forwarded-For": "2001:db8:1:3::1"}).status_code == 200


@pytest.mark.ops
def test_the_guides_ciphers_leave_out_whom_tls_1_2_would_serve(
    guide: StartNginx, shipped: Callable[..., Edge], tmp_path: Path
) -> None:
    install(tmp_path / "c", ["127.0.0.1:9"])
    pem = tmp_path / "c/nllbd/site/certificate"
    url = guide(
        f"ssl_certificate {pem}/fullchain.pem; ssl_certificate_key {pem}/privkey.pem; ssl_protocols TLSv1.2 TLSv1.3;"
        "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;",
        listen=" ssl",
    )

    def agrees(port: str, cipher: str) -> bool:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-tls1_2"]
        done = subprocess.run([*command, "-cipher", cipher], input="", capture_output=True, text=True, check=False)
        return f"Cipher is {cipher}" in done.stdout

    phones = "ECDHE-ECDSA-CHACHA20-POLY1305"
    assert agrees(url.rsplit(":", 1)[1], "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert not agrees(url.rsplit(":", 1)[1], phones)
    with Stub() as stub:
        assert agrees(str(shipped(stub).https_port), phones)


@pytest.mark.ops
def test_no_header_that_browsers_dropped(shipped: Callable[..., Edge]) -> None:
    with Stub() as stub:
        answer = ask(shipped(stub))
    assert "x-xss-protection" not in answer.headers
    assert answer.headers["content-security-policy"]


@pytest.mark.ops
def test_crontab_from_a_pipe_replaces_the_table(tmp_path: Path) -> None:
    """In a spool of our own: what root had there before is gone."""
    need_root()
    need("crontab", "unshare")
    script = f"""
        mount --bind {tmp_path} /var/spool/cron/crontabs
        echo '0 3 * * * /usr/local/bin/backup' | crontab -
        echo '0 12 * * * /usr/bin/certbot renew --quiet' | crontab -
        crontab -l
    """
    done = subprocess.run(["unshare", "--mount", "bash", "-ec", script], capture_output=True, text=True, check=True)
    assert "certbot" in done.stdout
    assert "backup" not in done.stdout
