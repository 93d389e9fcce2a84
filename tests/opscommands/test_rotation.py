"""docs/operations/rotation.md, rehearsed: a daemon serves on while what it trusts is replaced."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ops.kit.daemons import Daemon, free_port
from tests.ops.kit.programs import eventually, need

DOCUMENT = Path(__file__).parents[2] / "docs/operations/rotation.md"
BODY = json.dumps({"text": "Hello.", "source_lang": "en", "target_lang": "fr"})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With files of a key and of a secret for sessions among its settings."""
    folder = tmp_path_factory.mktemp("daemon")
    files = {name: folder / name for name in ("api_key", "jwt_secret")}
    for name, file in files.items():
        file.write_text(f"the-first-{name}-of-32-bytes-and-more", encoding="utf-8")
    with Daemon(folder=folder, **{f"{name}_file": str(file) for name, file in files.items()}) as running:
        yield running


def _nllbd(daemon: Daemon, *arguments: str) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {"HOME": str(daemon.folder)}
    command = [sys.executable, "-m", "nllbd", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout


def _status(daemon: Daemon, key: str) -> int:
    return _post(daemon, "/translate", {"X-API-Key": key})[0]


def _post(daemon: Daemon, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and answer of a translation asked for, or of what else takes a JSON body."""
    body = BODY if path == "/translate" else "{}"
    connection = HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_key_rotates_without_a_refused_request(daemon: Daemon) -> None:
    old = json.loads(_nllbd(daemon, "keys", "create", "ada", "--expires", "90d", "--json"))
    statuses, is_over = [], threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.append(_status(daemon, old["key"]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        new = json.loads(_nllbd(daemon, "keys", "rotate", "ada", "--overlap", "1h", "--json"))
        assert _status(daemon, new["key"]) == 200, "at once"
        asked = len(statuses)
        eventually(lambda: len(statuses) > asked + 3, what="requests with the old key, after the rotation")
    finally:
        is_over.set()
        asking.join()
    assert set(statuses) == {200}
    listed = {it["id"]: it for it in json.loads(_nllbd(daemon, "keys", "list", "--json"))}
    assert listed[old["id"]]["account"] == listed[new["id"]]["account"], "usage and quota go on"


def test_a_leaked_key_ends_within_five_seconds(daemon: Daemon) -> None:
    made = json.loads(_nllbd(daemon, "keys", "create", "leaky", "--json"))
    assert _status(daemon, made["key"]) == 200
    _nllbd(daemon, "keys", "revoke", made["id"])
    began = time.monotonic()
    eventually(lambda: _status(daemon, made["key"]) == 401, 5.0, "its end")
    assert time.monotonic() - began < 5.0


def test_a_secret_of_the_settings_is_taken_over_by_a_reload(daemon: Daemon) -> None:
    former = (daemon.folder / "api_key").read_text("utf-8")
    assert _status(daemon, former) == 200
    (daemon.folder / "api_key").write_text("the-second-key", encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: _status(daemon, "the-second-key") == 200, what="the new key")
    assert _status(daemon, former) == 401


def test_with_another_jwt_secret_sessions_end_and_new_ones_are_made(daemon: Daemon) -> None:
    key = json.loads(_nllbd(daemon, "keys", "create", "with-sessions", "--json"))["key"]
    former = _session(daemon, key)
    assert _post(daemon, "/translate", former)[0] == 200
    (daemon.folder / "jwt_secret").write_text("the-second-secret-of-32-bytes-and-more", encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: _post(daemon, "/translate", former)[0] == 401, what="the end of the session")
    assert _status(daemon, key) == 200, "the key is none of its affair"
    assert _post(daemon, "/translate", _session(daemon, key))[0] == 200


def _session(daemon: Daemon, key: str) -> dict[str, str]:
    """The header that a token of a new session is sent in."""
    status, answer = _post(daemon, "/auth/token", {"X-API-Key": key})
    assert status == 200, answer
    return {"Authorization": f"Bearer {answer['access_token']}"}


def test_a_certificate_is_replaced_under_traffic(tmp_path: Path) -> None:
    """nginx takes the new one by a reload; a connection that is open goes on, no new one is refused."""
    port = free_port()
    _write_certificate(tmp_path, serial=1)
    with _nginx(tmp_path, port) as process:
        open_connection = _connection(port)
        assert _asked(open_connection) == (200, 1)
        statuses, is_over = [], threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                connection = _connection(port)
                statuses.append(_asked(connection)[0])
                connection.close()

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            _write_certificate(tmp_path, serial=2)
            process.send_signal(signal.SIGHUP)
            eventually(lambda: _serial_of_a_new_connection(port) == 2, what="the new certificate")
        finally:
            is_over.set()
            asking.join()
        assert set(statuses) == {200}


def _write_certificate(folder: Path, serial: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "translate.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, now, now + timedelta(days=60))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


@contextmanager
def _nginx(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    nginx = need("nginx")["nginx"]
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
    (folder / "nginx.conf").write_text(
        f"""daemon off; pid {folder}/pid; error_log stderr;
events {{}}
http {{ access_log off; {paths} keepalive_timeout 60s;
server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/tls.pem; ssl_certificate_key {folder}/tls.pem;
location / {{ return 200 "here"; }} }} }}
""",
        encoding="utf-8",
    )
    command = [nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _serial_of_a_new_connection(port), what="nginx")
            yield process
        finally:
            process.terminate()


def _connection(port: int) -> HTTPSConnection:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection("127.0.0.1", port, timeout=20, context=context)


def _asked(connection: HTTPSConnection) -> tuple[int, int]:
    """A status, and the serial number of the certificate that came with it."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert connection.sock is not None
    certificate = connection.sock.getpeercert(binary_form=True)
    return answer.status, x509.load_der_x509_certificate(certificate).serial_number


def _serial_of_a_new_connection(port: int) -> int:
    connection = _connection(port)
    try:
        return _asked(connection)[1]
    except OSError:
        return 0
    finally:
        connection.close()


def test_the_document_names_tests_that_exist() -> None:
    import re

    for file, function in re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", DOCUMENT.read_text("utf-8")):
        assert f"def {function}(" in (DOCUMENT.parents[2] / file).read_text("utf-8"), f"{file} has no {function}"
