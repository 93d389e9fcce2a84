"""The application on a real port: answers, headers, states of the daemon, cancellation, metrics, logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp.test_utils import make_mocked_request
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd import log
from nllbd import metrics as m
from nllbd.lifecycle import LifecycleState

Eventually = Callable[..., Awaitable[None]]
LONG = "A sentence with enough letters in it to take a good many steps of the engine."
SECRET = "Schmetterlingsflügel"


# Answers


async def test_one_text(service: Any) -> None:
    status, answer = await service.translate("Hello there.")
    assert status == 200
    assert answer.pop("duration_ms") >= 0
    assert answer == {
        "translated_text": "Hello there.",
        "translations": [
            {
                "text": "Hello there.",
                "source_lang": "eng_Latn",
                "detected_confidence": None,
                "alternatives": [],
                "warnings": [],
            }
        ],
        "target_lang": "fra_Latn",
        "model": "demo",
        "usage": {"characters": 12, "segments": 1, "cached_segments": 0},
    }


async def test_a_list_has_no_translated_text(service: Any) -> None:
    _, answer = await service.translate(["Hello there.", "", "Again."])
    assert "translated_text" not in answer
    assert [item["text"] for item in answer["translations"]] == ["Hello there.", "", "Again."]


async def test_every_option_is_accepted(service: Any) -> None:
    status, answer = await service.translate(
        "Hello there.",
        source_lang="auto",
        target_lang="French",
        num_beams=2,
        max_length=100,
        length_penalty=1,
        early_stopping="never",
        alternatives=2,
        format="text",
        priority="bulk",
        timeout_s=30,
        stream=False,
    )
    assert status == 200
    (item,) = answer["translations"]
    assert item["alternatives"] == ["Hello there."] * 2
    assert (item["source_lang"], item["detected_confidence"]) == ("eng_Latn", 0.9)


async def test_nulls_are_defaults(service: Any) -> None:
    names = ("num_beams", "max_length", "length_penalty", "early_stopping", "alternatives", "format", "priority")
    status, _ = await service.translate("Hello there.", **dict.fromkeys((*names, "timeout_s", "stream")))
    assert status == 200


async def test_html(service: Any) -> None:
    _, answer = await service.translate("<p>Tom &amp; <b>Jerry</b></p>", format="html")
    assert answer["translated_text"] == "<p>Tom &amp; <b>Jerry</b></p>"


SCALARS = st.characters(exclude_categories=("Cs",))


async def test_identity_through_http(service: Any) -> None:
    """Whatever Unicode comes in goes out. Hypothesis draws the texts; one service answers them all."""
    drawn: list[list[str]] = []

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.text(SCALARS, max_size=60), min_size=1, max_size=4))
    def draw(texts: list[str]) -> None:
        drawn.append(texts)

    draw()
    for texts in drawn:
        status, answer = await service.translate(texts)
        assert status == 200
        assert [item["text"] for item in answer["translations"]] == texts


async def test_escapes_and_nul_survive(service: Any) -> None:
    text = 'Quote " backslash \\ slash / nul \0 tab \t emoji 🙂 astral 𝒳 rtl שלום zero\u200bwidth'
    _, answer = await service.translate(text)
    assert answer["translated_text"] == text


async def test_detect(service: Any) -> None:
    status, answer, _ = await service.request("POST", "/detect", json={"text": ["Hello there.", "Lorem."]})
    assert status == 200
    known, unknown = answer["detections"]
    assert (known["language"], known["confidence"]) == ("eng_Latn", 0.9)
    assert known["candidates"] == [{"language": "eng_Latn", "confidence": 0.9}]
    assert unknown["language"] is None


async def test_languages_are_libretranslate_s_list(service: Any) -> None:
    status, answer, _ = await service.request("GET", "/languages")
    assert (status, len(answer)) == (200, 202)
    french = next(language for language in answer if language["code"] == "fr")
    assert (french["flores"], french["name"]) == ("fra_Latn", "French")
    assert "en" in french["targets"]
    assert len({language["code"] for language in answer}) == 202


async def test_version(service: Any) -> None:
    _, answer, _ = await service.request("GET", "/version")
    assert (answer["name"], answer["model"], answer["device"]) == ("nllbd", "demo", "fake")
    assert answer["max_request_size"] == service.context.settings.max_request_size


async def test_the_page_and_its_files(service: Any) -> None:
    for path, kind in (("/", "text/html"), ("/static/app.css", "text/css"), ("/static/app.js", "text/javascript")):
        status, body, response = await service.request("GET", path)
        assert (status, response.content_type) == (200, kind)
        assert body
        assert "https://" not in body.replace("https://example", "")  # nothing comes from elsewhere
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        again, _, _ = await service.request("GET", path, headers={"If-None-Match": response.headers["ETag"]})
        assert again == 304


async def test_pages_can_be_switched_off(start_service: Any) -> None:
    service = await start_service(enable_web=False, enable_swagger=False)
    for path in ("/", "/static/app.js", "/openapi.json", "/docs", "/docs/start.js"):
        status, answer, _ = await service.request("GET", path)
        assert (status, answer["error"]["code"]) == (404, "not_found")


# Streaming


def events_of(body: str) -> list[tuple[str, Any]]:
    found = []
    for block in body.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("how", ["field", "header"])
async def test_server_sent_events(service: Any, how: str) -> None:
    text = "First sentence. Second one.\n\nThird, in its own paragraph."
    body = {"text": text, "source_lang": "en", "target_lang": "fr", "stream": how == "field"}
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    status, content, response = await service.request("POST", "/translate", json=body, headers=headers)
    assert (status, response.content_type) == (200, "text/event-stream")
    assert response.headers["X-Request-Id"]
    *segments, (last, done) = events_of(content)
    assert {name for name, _ in segments} == {"segment"}
    assert "".join(event["text"] for _, event in segments) == text
    assert [event["segment_index"] for _, event in segments] == [0, 1, 2]
    assert text[slice(*segments[1][1]["source_span"])] == "Second one."
    assert (last, done["usage"]["segments"]) == ("done", 3)


async def test_errors_before_the_first_event_have_their_status(service: Any) -> None:
    status, answer = await service.translate("Hello there.", target_lang="klingon", stream=True)
    assert (status, answer["error"]["code"]) == (400, "unknown_language")


async def test_a_late_error_is_an_event(start_service: Any) -> None:
    service = await start_service(runner="fake:step_ms=5")
    body = {"text": "Hi.\n" + LONG * 2, "source_lang": "en", "target_lang": "fr", "stream": True, "timeout_s": 0.3}
    status, content, response = await service.request("POST", "/translate", json=body)
    assert status == 200
    (first, _), *_, (last, error) = events_of(content)
    assert (first, last) == ("segment", "error")
    assert error["error"]["code"] == "deadline_exceeded"
    assert error["error"]["request_id"] == response.headers["X-Request-Id"]


async def test_a_heartbeat_keeps_proxies_patient(start_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nllbd.http.stream.HEARTBEAT_S", 0.02)
    service = await start_service(runner="fake:step_ms=5")
    body = {"text": "Hi.\n" + LONG, "source_lang": "en", "target_lang": "fr", "stream": True}
    _, content, _ = await service.request("POST", "/translate", json=body)
    assert "\n\n: still working\n\n" in content
    assert events_of(content)[-1][0] == "done"


# Single flight, cancellation, deadline, overload


async def test_equal_requests_join(start_service: Any) -> None:
    service = await start_service(runner="fake:step_ms=2")
    answers = await asyncio.gather(*(service.translate(LONG) for _ in range(4)))
    assert {answer["translated_text"] for _, answer in answers} == {LONG}
    assert service.context.metrics.value(m.SEQUENCES, result="submitted") == 1
    assert service.context.metrics.value(m.SEQUENCES, result="joined") == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_aborts_its_work(
    start_service: Any, eventually: Eventually, stream: bool
) -> None:
    service = await start_service(runner="fake:step_ms=20")
    body = {"text": "Hi.\n" + LONG * 4, "source_lang": "en", "target_lang": "fr", "stream": stream}
    content = json.dumps(body).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(content) + content)
    await eventually(lambda: service.context.engine.stats.num_running > 0)
    steps = service.context.engine.stats.steps
    writer.transport.abort()
    await eventually(lambda: service.context.engine.stats.num_running == 0)
    assert service.context.engine.stats.steps <= steps + 60  # of the 80 and more that the sentence would take
    await eventually(lambda: service.context.metrics.value(m.CANCELLED) == 1)
    assert service.context.lifecycle.num_in_flight == 0
    assert service.context.translator.admission.num_tokens == 0
    assert len(service.context.translator.inflight) == 0


async def test_the_deadline_is_504(start_service: Any) -> None:
    service = await start_service(runner="fake:step_ms=20")
    status, answer = await service.translate(LONG, timeout_s=0.1)
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")


async def test_overload_is_503_with_retry_after(start_service: Any, eventually: Eventually) -> None:
    service = await start_service(runner="fake:step_ms=20")
    service.context.translator.admission.meter.rate = 100.0
    first = asyncio.create_task(service.translate(LONG))
    await eventually(lambda: service.context.translator.admission.num_tokens > 0)
    body = {"text": LONG + " Again.", "source_lang": "en", "target_lang": "fr", "timeout_s": 4}
    status, answer, response = await service.request("POST", "/translate", json=body)
    assert (status, answer["error"]["code"]) == (503, "overloaded")
    assert int(response.headers["Retry-After"]) >= 1
    assert "X-Nllbd-Retryable" not in response.headers
    assert service.context.metrics.value(m.REJECTED, reason="overloaded") == 1
    assert (await first)[0] == 200


# States of the daemon


async def test_before_it_is_ready_only_livez_is_200(start_service: Any) -> None:
    service = await start_service(is_ready=False)
    for path, expected in (("/livez", 200), ("/readyz", 503), ("/health", 503), ("/languages", 503), ("/", 503)):
        status, _, _ = await service.request("GET", path)
        assert status == expected, path
    body = {"text": "Hello", "target_lang": "fr"}
    status, answer, response = await service.request("POST", "/translate", json=body)
    assert (status, answer["error"]["code"]) == (503, "not_ready")
    assert response.headers["X-Nllbd-Retryable"] == "1"
    assert response.headers["Retry-After"]
    status, answer, _ = await service.request("GET", "/health")
    assert (status, answer["status"]) == (503, "loading")


async def test_a_failed_start_is_told(start_service: Any) -> None:
    service = await start_service(is_ready=False)
    service.context.lifecycle.fail("model.safetensors is missing")
    status, answer, _ = await service.request("GET", "/health")
    assert (status, answer["status"], answer["message"]) == (503, "failed", "model.safetensors is missing")


async def test_ready(service: Any) -> None:
    for path in ("/livez", "/readyz", "/health"):
        status, answer, _ = await service.request("GET", path)
        assert status == 200
    assert answer["status"] == "ok"


async def test_draining(start_service: Any, eventually: Eventually) -> None:
    service = await start_service(runner="fake:step_ms=5")
    under_way = asyncio.create_task(service.translate(LONG))
    await eventually(lambda: service.context.engine.stats.num_running > 0)
    assert (await service.request("GET", "/version"))[0] == 200  # leaves a second connection, kept alive
    service.context.lifecycle.advance(LifecycleState.DRAINING)
    body = {"text": "Hello", "target_lang": "fr"}
    status, answer, response = await service.request("POST", "/translate", json=body)
    assert (status, answer["error"]["code"]) == (503, "draining")
    assert response.headers["X-Nllbd-Retryable"] == "1"
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Connection"] == "close"
    for path, expected in (("/livez", 200), ("/readyz", 503), ("/health", 503)):
        status, answer, response = await service.request("GET", path)
        assert (status, "Retry-After" in response.headers) == (expected, expected == 503)
    assert answer["status"] == "draining"
    assert service.context.lifecycle.num_in_flight == 1
    status, answer = await under_way
    assert (status, answer["translated_text"]) == (200, LONG)
    await asyncio.wait_for(service.context.lifecycle.wait_idle(), 30)


async def test_an_answer_while_draining_closes_its_connection(start_service: Any, eventually: Eventually) -> None:
    service = await start_service(runner="fake:step_ms=5")
    body = {"text": LONG, "source_lang": "en", "target_lang": "fr"}
    under_way = asyncio.create_task(service.request("POST", "/translate", json=body))
    await eventually(lambda: service.context.engine.stats.num_running > 0)
    service.context.lifecycle.advance(LifecycleState.DRAINING)
    status, _, response = await under_way
    assert (status, response.headers["Connection"]) == (200, "close")


async def test_a_stopped_engine_is_503(service: Any) -> None:
    await service.context.engine.stop()
    status, answer = await service.translate("Hello there.")
    assert (status, answer["error"]["code"]) == (503, "not_ready")
    status, answer, _ = await service.request("GET", "/health")
    assert (status, answer["status"]) == (503, "failed")


# Credentials, origins, ids


async def test_the_key(start_service: Any) -> None:
    service = await start_service(api_key="s3cret")
    body = {"text": "Hello there.", "source_lang": "en", "target_lang": "fr"}
    cases: list[tuple[list[tuple[str, str]], int, str]] = [
        ([], 401, "unauthorized"),
        ([("X-API-Key", "wrong")], 401, "unauthorized"),
        ([("X-API-Key", "")], 401, "unauthorized"),
        ([("Authorization", "Bearer wrong")], 401, "unauthorized"),
        ([("Authorization", "Basic czNjcmV0")], 401, "unauthorized"),
        ([("Authorization", "Bearer")], 401, "unauthorized"),
        ([("X-API-Key", "s3cret"), ("Authorization", "Bearer other")], 400, "invalid_value"),
        ([("X-API-Key", "s3cret"), ("X-API-Key", "other")], 400, "invalid_value"),
        ([("X-API-Key", "s3cret"), ("Authorization", "Bearer s3cret")], 200, ""),
        ([("X-API-Key", "s3cret")], 200, ""),
        ([("Authorization", "bearer  s3cret")], 200, ""),
    ]
    for headers, expected, code in cases:
        status, answer, response = await service.request("POST", "/translate", json=body, headers=headers)
        assert status == expected, headers
        assert expected == 200 or answer["error"]["code"] == code
        assert (status != 401) or response.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/health", "/livez", "/readyz", "/languages", "/version", "/"):
        assert (await service.request("GET", path))[0] == 200
    assert (await service.request("POST", "/detect", json={"text": "Hello"}))[0] == 401


async def test_origins(start_service: Any) -> None:
    service = await start_service(cors_origins=("https://app.example",))
    good, bad = {"Origin": "https://app.example"}, {"Origin": "https://app.example.evil"}
    _, _, response = await service.request("GET", "/version", headers=good)
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Origin" in response.headers["Vary"]
    _, _, response = await service.request("GET", "/version", headers=bad)
    assert "Access-Control-Allow-Origin" not in response.headers
    for headers in (bad, {}):
        _, _, response = await service.request("GET", "/languages", headers=headers)
        assert response.headers.getall("Vary") == ["Origin"], "or a cache hands it to the origin that may read it"
    ask = {"Access-Control-Request-Method": "POST"}
    status, _, response = await service.request("OPTIONS", "/translate", headers=good | ask)
    assert status == 204
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    allowed = response.headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in ("x-api-key", "ocp-apim-subscription-region", "traceparent"))
    assert (await service.request("OPTIONS", "/translate", headers=bad | ask))[0] == 405
    status, _, response = await service.request("GET", "/nothing", headers=good)
    assert (status, response.headers["Access-Control-Allow-Origin"]) == (404, "https://app.example")


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream; charset=utf-8", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("application/json, text/event-stream;q=0", False),
        ("application/json, text/event-stream; q=0.000", False),
        ("text/event-stream-like", False),
        ("*/*", False),
    ],
)
async def test_who_accepts_events_gets_them(service: Any, accept: str, is_stream: bool) -> None:
    body = {"text": "Hello", "source_lang": "en", "target_lang": "fr"}
    _, _, response = await service.request("POST", "/translate", json=body, headers={"Accept": accept})
    assert (response.content_type == "text/event-stream") is is_stream


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_page_that_is_known_is_not_sent_again(service: Any, known: str) -> None:
    """Proxies that compress make a tag a weak one."""
    _, _, response = await service.request("GET", "/languages")
    headers = {"If-None-Match": known.format(response.headers["ETag"])}
    assert (await service.request("GET", "/languages", headers=headers))[0] == 304


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("abc-123", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("<b>", False)]
)
async def test_request_ids(service: Any, sent: str, is_kept: bool) -> None:
    _, _, response = await service.request("GET", "/version", headers={"X-Request-Id": sent})
    got = response.headers["X-Request-Id"]
    assert (got == sent) is is_kept
    assert got


# Metrics and logs


async def test_metrics_are_on_their_own_port(service: Any) -> None:
    await service.translate("Hello there.")
    await service.translate("", target_lang="fr")
    text = await service.scrape()
    assert 'nllbd_http_requests_total{method="POST",route="/translate",status="200"} 1.0' in text
    assert 'nllbd_errors_total{code="empty_text"} 1.0' in text
    assert "translation_requests_total 1.0" in text
    assert "translation_duration_seconds_count 1.0" in text
    assert "system_memory_usage_bytes" in text
    assert (await service.request("GET", "/metrics"))[0] == 404


async def test_an_idle_server_has_nothing_in_flight(service: Any) -> None:
    await service.translate("Hello there.")
    assert "nllbd_requests_in_flight 0.0" in await service.scrape()


async def test_the_server_header_tells_no_version(service: Any) -> None:
    for method, path in (("GET", "/languages"), ("GET", "/nowhere"), ("POST", "/translate")):
        _, _, response = await service.request(method, path)
        assert response.headers.getall("Server") == ["nllbd"]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"NOT HTTP\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert b"\r\nServer: nllbd\r\n" in answer


async def test_labels_stay_bounded_whatever_comes(service: Any) -> None:
    for number in range(30):
        await service.request("PATCH", f"/no/such/{number}", headers={"X-Request-Id": f"id-{number}"})
        await service.translate("Hello", target_lang=f"lang{number}")
    text = await service.scrape()
    assert "such" not in text
    assert "lang1" not in text
    assert "127.0.0.1" not in text
    assert text.count("nllbd_http_requests_total{") <= 4


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged, at the most talkative level."""
    stream = io.StringIO()
    output = log.configure("DEBUG", "json", stream)
    yield stream
    output.close()
    structlog.reset_defaults()
    logging.getLogger("nllbd").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_the_access_line(logged: io.StringIO, start_service: Any, eventually: Eventually) -> None:
    service = await start_service()
    body = {"text": "Hello there.", "source_lang": "en", "target_lang": "fr"}
    await service.request("POST", "/translate", json=body, headers={"X-Request-Id": "r-1"})
    await eventually(lambda: any(line["event"] == "request" for line in lines(logged)))
    (line,) = [line for line in lines(logged) if line["event"] == "request"]
    assert (line["method"], line["route"], line["status"], line["code"]) == ("POST", "/translate", 200, "ok")
    assert (line["request_id"], line["client"]) == ("r-1", "127.0.0.1")
    assert (line["characters"], line["segments"], line["source_tokens"]) == (12, 1, 14)
    assert {"duration_ms", "queue_ms", "encode_ms", "decode_ms", "target_tokens"} <= set(line)


async def test_no_text_is_ever_logged(
    logged: io.StringIO, start_service: Any, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    service = await start_service(max_request_size=100)
    await service.translate(SECRET)
    await service.translate(SECRET * 50)
    await service.translate("Hello", target_lang=SECRET)
    await service.translate("Hello", **{SECRET: 1})
    await service.translate(SECRET, source_lang="auto")
    await service.request("GET", f"/{SECRET}?q={SECRET}")
    await service.request("POST", "/translate", data=f'{{"text": "{SECRET}'.encode(), headers={"X-Api-Key": SECRET})
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"{SECRET}\r\n\r\n".encode())
    await writer.drain()

    def explode(*_: object) -> None:
        raise ValueError(f"cannot translate {SECRET}")

    monkeypatch.setattr(service.context.translator, "translate", explode)
    status, answer = await service.translate(SECRET)
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert SECRET not in json.dumps(answer)
    events = ("request", "unexpected error", "malformed request")
    await eventually(lambda: set(events) <= {line["event"] for line in lines(logged)})
    assert SECRET not in logged.getvalue()
    assert SECRET.encode("utf-8").decode("latin-1") not in logged.getvalue()
    (unexpected,) = [line for line in lines(logged) if line["event"] == "unexpected error"]
    assert unexpected["exception"] == "builtins.ValueError"
    assert unexpected["request_id"] == answer["error"]["request_id"]
    writer.close()


# The event loop, and what is not imported


async def test_nothing_blocks_the_event_loop(start_service: Any) -> None:
    service = await start_service()
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(1000))
    with blockbuster_ctx():
        assert (await service.translate(text))[1]["translated_text"] == text
        await service.translate("Hello there.", source_lang="auto")
        await service.translate(["Hello there."], stream=True)
        for path in ("/", "/static/app.js", "/languages", "/health", "/version", "/openapi.json", "/nothing"):
            await service.request("GET", path)
        await service.scrape()


def test_torch_and_transformers_are_not_imported() -> None:
    code = (
        "import sys, nllbd.http.app, nllbd.translator, nllbd.http.server\n"
        "heavy = {'torch', 'transformers', 'numpy', 'py3langid'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_settings_that_change_live(service: Any) -> None:
    text = "A sentence that will be too long."
    assert (await service.translate(text))[0] == 200
    forged = {"X-Forwarded-For": "203.0.113.9"}
    fresh = replace(service.context.settings, max_request_size=5, api_key="s3cret", trusted_proxies=("127.0.0.1",))
    service.context.apply(fresh)
    assert (await service.translate("Hello"))[0] == 401
    body = {"text": text, "target_lang": "fr"}
    status, answer, _ = await service.request("POST", "/translate", json=body, headers={"X-API-Key": "s3cret"})
    assert (status, answer["error"]["code"]) == (413, "text_too_long")
    request = make_mocked_request("GET", "/", headers=forged, transport=Loopback())
    assert service.context.clients.find(request) == "203.0.113.9"


class Loopback:
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


async def test_head_has_no_body(service: Any) -> None:
    for path in ("/health", "/", "/languages"):
        status, body, _ = await service.request("HEAD", path)
        assert (status, body or "") == (200, "")


async def test_pipelined_requests_are_answered_in_order(service: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for text in ("First.", "Second.", "Third."):
        body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr"}).encode()
        writer.write(b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answers = []
    for _ in range(3):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answers.append(json.loads(await reader.readexactly(length))["translated_text"])
    assert answers == ["First.", "Second.", "Third."]
    writer.close()


async def test_kept_alive_connections_serve_many_requests(service: Any) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        for number in range(20):
            body = {"text": f"Number {number} here.", "source_lang": "en", "target_lang": "fr"}
            async with session.post(service.url + "/translate", json=body) as response:
                assert (await response.json())["translated_text"] == body["text"]
    assert service.context.lifecycle.num_in_flight == 0


async def test_a_rush_of_detections_is_refused_in_part_and_keeps_nobody_else(service: Any) -> None:
    """64 requests of 128 texts, each text 2 ms of work: 16 s of it. Somebody's `auto` translation does not wait."""
    detect = service.context.detector.detect

    def slow(text: str) -> Any:
        time.sleep(0.002)
        return detect(text)

    service.context.detector.detect = slow
    body = {"text": ["hello " * 300] * 128}

    async def ask() -> tuple[int, Any, float]:
        began = time.monotonic()
        status, answer, response = await service.request("POST", "/detect", json=body)
        if status == 503:
            assert (answer["error"]["code"], int(response.headers["Retry-After"]) >= 1) == ("overloaded", True)
        return status, answer, time.monotonic() - began

    for _ in range(2):
        await ask()  # from now on it is known how long they take
    rush = [asyncio.create_task(ask()) for _ in range(64)]
    done, _ = await asyncio.wait(rush, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result()[0] for task in done] == [503] * len(done)  # at once
    began = time.monotonic()
    status, answer, _ = await service.request(
        "POST", "/translate", json={"text": "hello", "source_lang": "auto", "target_lang": "fra_Latn"}
    )
    assert (status, answer["translated_text"]) == (200, "hello")
    assert time.monotonic() - began < 1.5
    answers = await asyncio.gather(*rush)
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(503) > statuses.count(200)
