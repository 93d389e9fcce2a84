"""Reports of unexpected errors, against a local endpoint: they arrive, and nothing of a user's arrives with them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog

from nllbd import log, sentry
from nllbd.errors import ConfigError, InternalError

PLANTED = "Schmetterlingsflügel"
KEY = "nllbd_1_geheimerSchluessel"
WITHIN_S = 30.0


class Endpoint:
    """A Sentry server that keeps what it is sent, decompressed: `arrived` is (path, headers, body)."""

    def __init__(self) -> None:
        arrived: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived = arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                coding = self.headers.get("Content-Encoding")
                if coding == "gzip":
                    body = gzip.decompress(body)
                elif coding == "br":
                    import brotli

                    body = brotli.decompress(body)
                arrived.append((self.path, dict(self.headers), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.dsn = f"http://public@127.0.0.1:{self._server.server_port}/42"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def events(self, count: int = 1) -> list[dict[str, Any]]:
        """The first `count` events, waited for."""
        end = time.monotonic() + WITHIN_S
        while len(self.arrived) < count:
            assert time.monotonic() < end, f"{len(self.arrived)} events arrived, {count} were due"
            time.sleep(0.01)
        return [json.loads(body.split(b"\n")[2]) for _, _, body in self.arrived]

    @property
    def everything(self) -> str:
        return repr([(path, headers, body.decode()) for path, headers, body in self.arrived])


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def reporting(endpoint: Endpoint) -> Iterator[sentry.Reporter]:
    output = log.configure("INFO", "json", io.StringIO())
    reporter = sentry.start_reporting(endpoint.dsn)
    yield reporter
    sentry.stop_reporting(reporter)
    output.close()
    structlog.reset_defaults()
    logging.getLogger("nllbd").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


def fail_on(text: str) -> None:
    local_copy = text.upper()
    raise ValueError(f"cannot cope with {text} {local_copy}")


async def test_an_unexpected_error_of_a_request_arrives_without_a_word_of_it(
    start_service: Any, reporting: sentry.Reporter, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start_service(api_key=KEY)

    def broken(*_: Any) -> None:
        fail_on(PLANTED)

    monkeypatch.setattr(service.context.translator._planner, "plan", broken)
    body = {"text": PLANTED, "source_lang": "eng_Latn", "target_lang": "fra_Latn"}
    headers = {"X-API-Key": KEY, "Cookie": PLANTED.encode().hex(), "X-Request-Id": "Geheimnis"}
    status, _, _ = await service.request("POST", f"/translate?token={KEY}", json=body, headers=headers)
    assert status == 500
    (event,) = await asyncio.to_thread(endpoint.events)
    (error,) = event["exception"]["values"]
    assert (error["type"], error["module"]) == ("ValueError", "builtins")
    assert error["stacktrace"]["frames"][-1]["function"] == "fail_on"
    assert event["logentry"]["message"] == "unexpected error"
    assert event["tags"] == {"route": "/translate"}
    assert event["release"].startswith("nllbd@")
    for secret in (PLANTED, PLANTED.upper(), KEY, "Geheimnis", PLANTED.encode().hex(), "cannot cope"):
        assert secret not in endpoint.everything
    assert not {"request", "user", "breadcrumbs", "extra", "modules"} & event.keys()
    assert "vars" not in endpoint.everything
    assert "context_line" not in endpoint.everything


async def test_expected_errors_are_nobody_s_business(
    start_service: Any, reporting: sentry.Reporter, endpoint: Endpoint
) -> None:
    service = await start_service()
    for body in (b"{", b'{"text": "Hi.", "source_lang": "xx", "target_lang": "fr"}'):
        status, _, _ = await service.request(
            "POST", "/translate", data=body, headers={"Content-Type": "application/json"}
        )
        assert status == 400
    log.get_logger("nllbd.test").error("settings not reloaded", reason=PLANTED)
    log.get_logger("nllbd.test").error("marker", exception="builtins.KeyError", frames=["/a/b.py:3 f"])
    (event,) = await asyncio.to_thread(endpoint.events)
    assert event["logentry"]["message"] == "marker"


def test_every_form_of_a_logged_exception(reporting: sentry.Reporter, endpoint: Endpoint) -> None:
    try:
        fail_on(PLANTED)
    except ValueError:
        log.get_logger("nllbd.daemon").exception("shutdown", request_id="0123456789abcdef")
        logging.getLogger("nllbd.bridge.process").exception("the supervisor failed on %s", PLANTED)
        logging.getLogger("asyncio").exception(f"Task exception was never retrieved: {PLANTED}")
    logging.getLogger("nllbd.bridge.process").error("the engine has failed: %s", PLANTED)
    events = endpoint.events(4)
    types = [event["exception"]["values"][0]["type"] if "exception" in event else None for event in events]
    assert types == ["ValueError", "ValueError", "ValueError", None]
    assert [event.get("logentry", {}).get("message") for event in events] == [
        "shutdown",
        "the supervisor failed on %s",
        None,
        "the engine has failed: %s",
    ]
    assert events[0]["tags"] == {"request_id": "0123456789abcdef"}
    assert PLANTED not in endpoint.everything


def record_of(error: BaseException | None, name: str = "nllbd.test") -> logging.LogRecord:
    info = (type(error), error, None) if error is not None else None
    return logging.LogRecord(name, logging.ERROR, __file__, 1, "text", (), info)  # type: ignore[arg-type]


def test_typed_errors_and_plain_lines_make_no_event() -> None:
    assert sentry.make_event(record_of(InternalError("said to the client"))) is None
    assert sentry.make_event(record_of(None)) is None
    assert sentry.make_event(record_of(None, "nllbd.bridge.child")) is not None
    assert sentry.make_event(record_of(ValueError(), "opentelemetry.exporter.otlp")) is None


def test_frames_say_where_in_the_package_and_not_where_on_the_machine() -> None:
    fields = {
        "event": "x",
        "exception": "a.b.C",
        "frames": ["/srv/joe/nllbd/http/app.py:7 f", "/v/site-packages/q/z.py:1 g"],
    }
    record = record_of(None)
    record.msg = fields  # type: ignore[assignment]
    event = sentry.make_event(record)
    assert event is not None
    (error,) = event["exception"]["values"]
    assert (error["module"], error["type"]) == ("a.b", "C")
    assert [(f["filename"], f["lineno"], f["in_app"]) for f in error["stacktrace"]["frames"]] == [
        ("nllbd/http/app.py", 7, True),
        ("q/z.py", 1, False),
    ]
    assert "joe" not in json.dumps(event)


def test_a_storm_is_bounded(endpoint: Endpoint) -> None:
    now = [0.0]
    reporter = sentry.Reporter(endpoint.dsn, clock=lambda: now[0])
    for _ in range(sentry.MAX_PER_MINUTE + 5):
        reporter.emit(record_of(ValueError()))
    assert reporter.num_dropped == 5
    now[0] = 61.0
    reporter.emit(record_of(ValueError()))
    assert reporter.num_dropped == 5
    reporter.close()
    assert len(endpoint.arrived) == sentry.MAX_PER_MINUTE + 1


def test_shutdown_does_not_wait_for_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts by its backlog and never reads
        reporter = sentry.Reporter(f"http://public@127.0.0.1:{silent.getsockname()[1]}/42")
        reporter.emit(record_of(ValueError()))
        begin = time.monotonic()
        reporter.close()
        assert time.monotonic() - begin < 5 * sentry.FLUSH_S


@pytest.mark.parametrize("dsn", ["http://127.0.0.1:9", "http://key@127.0.0.1", "nonsense"])
def test_a_dsn_that_is_none_is_a_config_error(dsn: str) -> None:
    with pytest.raises(ConfigError, match="sentry_dsn"):
        sentry.Reporter(dsn)


def test_nothing_is_imported_unless_it_is_wanted() -> None:
    script = "import sys, nllbd.daemon; sys.exit(not {'sentry_sdk', 'opentelemetry.exporter'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
