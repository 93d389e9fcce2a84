"""OpenTelemetry spans of requests, where an endpoint is set: request → plan, and each sequence's queue, encode, decode.

Without an endpoint all of it is `NO_TRACING`, which does nothing, and OpenTelemetry (the extra `nllbd[otel]`) is not
imported. Spans carry names of ours, counts and identifiers, never a text, and no exception: its message may quote one.
Knows no HTTP but the two headers of https://www.w3.org/TR/trace-context/, and no translator: it is told what began and
what ended.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nllbd import __version__
from nllbd.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
FLUSH_S = 3.0
#: Sequences of one request that get spans; a document's other thousand would look the same.
MAX_SEQUENCES = 32
_PATH = "/v1/traces"
_EXPORT_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class RequestSpan:
    """The span of one request. `traceparent` is what to send on; `num_sequences` counts those that were told of."""

    trace_id: str
    traceparent: str
    span: Span
    context: Context
    num_sequences: int = 0

    def finish(self, attributes: Mapping[str, str | int | float], failed: bool) -> None:
        """Say what came of it. `failed`: by our own fault."""
        from opentelemetry.trace import Status, StatusCode

        self.span.set_attributes(attributes)
        if failed:
            self.span.set_status(Status(StatusCode.ERROR))


class Tracing(Protocol):
    """What the request side tells. One event loop."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[RequestSpan | None]:
        """The span of a request, a child of what its headers name."""
        ...

    def span(self, name: str) -> AbstractContextManager[None]:
        """A part of the request at hand."""
        ...

    def sequence(self, began_s: float, queue_s: float, encode_s: float, decode_s: float) -> None:
        """A sequence of the request at hand that ended just now; it was asked for at `began_s` (`time.time()`)."""

    def close(self) -> None:
        """Send what is left; blocks for FLUSH_S or so at the most."""


_NOTHING: AbstractContextManager[None] = nullcontext()


class _NoTracing:
    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        return _NOTHING

    def span(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def sequence(self, began_s: float, queue_s: float, encode_s: float, decode_s: float) -> None:
        return

    def close(self) -> None:
        return


NO_TRACING: Tracing = _NoTracing()


def open_tracing(endpoint: str | None) -> Tracing:
    """Tracing to an OTLP/HTTP endpoint, `http://HOST:4318` say. Headers, sampler and resource attributes come from
    OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, …).

    Raises ConfigError where OpenTelemetry is not installed.
    """
    if endpoint is None:
        return NO_TRACING
    try:
        return _OtelTracing(endpoint)
    except ImportError as error:
        raise ConfigError(
            f"otlp_endpoint is set, but {error.name} is not installed: pip install 'nllbd[otel]', or leave it out",
            field="otlp_endpoint",
        ) from None


class _OtelTracing:
    def __init__(self, endpoint: str) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = _make_provider(endpoint)
        self._tracer = self._provider.get_tracer("nllbd", __version__)
        self._current: ContextVar[RequestSpan | None] = ContextVar("nllbd_request_span", default=None)

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[RequestSpan | None]:
        carrier = {key: headers[key] for key in (TRACEPARENT, TRACESTATE) if key in headers}
        parent = self._propagator.extract(carrier)
        with self._start(name, parent, self._trace.SpanKind.SERVER) as span:
            context = self._trace.set_span_in_context(span, parent)
            sent: dict[str, str] = {}
            self._propagator.inject(sent, context)
            trace_id = self._trace.format_trace_id(span.get_span_context().trace_id)
            request = RequestSpan(trace_id, sent.get(TRACEPARENT, ""), span, context)
            token = self._current.set(request)
            try:
                yield request
            finally:
                self._current.reset(token)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        request = self._current.get()
        if request is None:
            yield
            return
        with self._start(name, request.context, self._trace.SpanKind.INTERNAL):
            yield

    def sequence(self, began_s: float, queue_s: float, encode_s: float, decode_s: float) -> None:
        request = self._current.get()
        if request is None or request.num_sequences >= MAX_SEQUENCES:
            return
        request.num_sequences += 1
        begin, end = int(began_s * 1e9), time.time_ns()
        parent = self._tracer.start_span("sequence", context=request.context, start_time=begin)
        context = self._trace.set_span_in_context(parent, request.context)
        decode = max(begin, end - int(decode_s * 1e9))
        encode = max(begin, decode - int(encode_s * 1e9))
        queued = min(begin + int(queue_s * 1e9), encode)  # one that was joined may have waited longer than we did
        for name, since, until in (("queue", begin, queued), ("encode", encode, decode), ("decode", decode, end)):
            self._tracer.start_span(name, context=context, start_time=since).end(until)
        parent.end(end)

    def _start(self, name: str, context: Context, kind: SpanKind) -> Span:
        return self._tracer.start_span(
            name, context=context, kind=kind, record_exception=False, set_status_on_exception=False
        )

    def close(self) -> None:
        """In a thread, for neither the SDK's flush nor its shutdown keeps to a time when the collector hangs."""
        closer = threading.Thread(target=self._provider.shutdown, name="otel close", daemon=True)
        closer.start()
        closer.join(FLUSH_S)


def _make_provider(endpoint: str) -> TracerProvider:
    """A provider of our own, nothing global."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = endpoint if endpoint.endswith(_PATH) else endpoint.rstrip("/") + _PATH
    name = os.environ.get("OTEL_SERVICE_NAME") or "nllbd"
    resource = Resource.create({"service.name": name, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=_EXPORT_TIMEOUT_S)))
    return provider
