"""Spans of requests, sent over OTLP/HTTP to a receiver of ours: their family, their times, and not a word in them."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nllbd import tracing
from nllbd.errors import ConfigError

SECRET = "Schmetterlingsflügel"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """An OTLP/HTTP receiver that keeps every span."""

    def __init__(self) -> None:
        spans: list[Any] = []
        bodies: list[bytes] = []
        self.spans, self.bodies = spans, bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                bodies.append(self.path.encode() + body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> Any:
        (span,) = self.named(name)
        return span


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
async def traced(start_service: Any, collector: Collector) -> Any:
    """A service that traces; `await traced.finish()` sends what there is."""
    service = await start_service(runner="fake:step_ms=2")
    spans = tracing.open_tracing(collector.url)
    service.context.tracing = service.context.translator._tracing = spans
    service.context.translator._segments._tracing = spans
    service.finish = lambda: asyncio.to_thread(spans.close)
    return service


def attributes(span: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in span.attributes}


async def test_a_request_s_spans(traced: Any, collector: Collector) -> None:
    body = {"text": f"{SECRET} one. And {SECRET} two.", "source_lang": "en", "target_lang": "fr"}
    status, _, response = await traced.request("POST", "/translate", json=body, headers={"traceparent": TRACEPARENT})
    assert status == 200
    await traced.request("GET", "/health")
    await traced.finish()
    request, plan = collector.only("/translate"), collector.only("plan")
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert plan.parent_span_id == request.span_id
    assert response.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    told = attributes(request)
    assert (told["nllbd.status"], told["nllbd.segments"], told["nllbd.route"]) == (200, 2, "/translate")
    sequences = {span.span_id: span for span in collector.named("sequence")}
    assert len(sequences) == 2
    for name in ("queue", "encode", "decode"):
        parts = collector.named(name)
        assert {span.parent_span_id for span in parts} == set(sequences)
        for span in parts:
            parent = sequences[span.parent_span_id]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
            assert request.start_time_unix_nano <= parent.start_time_unix_nano
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert not collector.named("/health")
    assert SECRET.encode() not in b"".join(collector.bodies)
    assert collector.bodies[0].startswith(b"/v1/traces")


@pytest.mark.parametrize("header", [None, "nonsense", "00-" + "0" * 32 + "-" + PARENT + "-01", "ff-" + TRACEPARENT[3:]])
async def test_a_trace_of_its_own_without_a_good_parent(traced: Any, collector: Collector, header: str | None) -> None:
    headers = {} if header is None else {"traceparent": header}
    _, _, response = await traced.request("GET", "/languages", headers=headers)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", response.headers["traceparent"])
    await traced.finish()
    assert collector.only("/languages").parent_span_id == b""


async def test_errors_are_marked_and_not_quoted(
    traced: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError(SECRET)

    await traced.request("POST", "/translate", json={"text": "Hi.", "source_lang": "en", "target_lang": SECRET})
    monkeypatch.setattr(traced.context.translator._planner, "plan", broken)
    status, _ = await traced.translate(SECRET)
    assert status == 500
    await traced.finish()
    wrong, failed = collector.named("/translate")
    assert (attributes(wrong)["nllbd.code"], wrong.status.code) == ("unknown_language", 0)
    assert (attributes(failed)["nllbd.code"], failed.status.code) == ("internal", 2)
    assert SECRET.encode() not in b"".join(collector.bodies)
    assert not any(span.events for span in collector.spans)


async def test_streams_are_traced_and_documents_within_a_bound(traced: Any, collector: Collector) -> None:
    text = " ".join(f"Sentence number {'x' * number} is here." for number in range(1, 60))
    body = {"text": text, "source_lang": "en", "target_lang": "fr", "stream": True}
    status, events, _ = await traced.request("POST", "/translate", json=body)
    assert status == 200
    assert "event: done" in events
    await traced.finish()
    assert len(collector.named("sequence")) == tracing.MAX_SEQUENCES
    assert {span.trace_id for span in collector.spans} == {collector.only("/translate").trace_id}


def test_closing_does_not_wait_for_a_collector_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts by its backlog and never reads
        spans = tracing.open_tracing(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with spans.request("/translate", {}):
            pass
        begin = time.monotonic()
        spans.close()
        assert time.monotonic() - begin < 4 * tracing.FLUSH_S


def test_off_without_an_endpoint() -> None:
    assert tracing.open_tracing(None) is tracing.NO_TRACING
    with tracing.NO_TRACING.request("/x", {}) as span, tracing.NO_TRACING.span("plan"):
        assert span is None


def test_without_the_package_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'nllbd\[otel\]'"):
        tracing.open_tracing("http://localhost:4318")
