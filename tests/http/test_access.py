"""The access line: one a request, with what it cost and who sent it, and no word of it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from nllbd import log

SECRET = "Schmetterlingsflügel"


class Lines(io.StringIO):
    """What was logged, as far as it is an access line."""

    @property
    def access(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in lines if line["logger"] == "nllbd.access"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    stream = Lines()
    output = log.configure("INFO", "json", stream)
    yield stream
    output.close()
    structlog.reset_defaults()
    logging.getLogger("nllbd").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


async def test_a_probe_that_failed_says_why(start_service: Any, lines: Lines, eventually: Any) -> None:
    service = await start_service(is_ready=False)
    lines.truncate(0)
    await service.request("GET", "/health")
    await eventually(lambda: len(lines.access) > 0)
    assert {(line["status"], line["code"]) for line in lines.access} == {(503, "not_ready")}
    await service.request("GET", "/readyz")
    told, _ = service.context.metrics.render()
    assert 'reason="not_ready"} 1' not in told.decode(), "nobody was refused"


async def test_a_translation_s_line(start_service: Any, lines: Lines, eventually: Any) -> None:
    service = await start_service(runner="fake:step_ms=2,token_us=100")
    texts = [f"{SECRET} one. And {SECRET} two."] * 2
    await asyncio.gather(service.translate(texts, num_beams=3), service.translate("Something else.", num_beams=2))
    await eventually(lambda: len(lines.access) == 2)
    line = next(line for line in lines.access if line["characters"] == len("".join(texts)))
    assert (line["status"], line["code"], line["route"], line["dialect"]) == (200, "ok", "/translate", "native")
    assert line["account"] == "address:127.0.0.1" or line["account"].startswith("address:")
    assert (line["segments"], line["cached_segments"], line["beams"]) == (4, 0, 3)
    assert 6 <= line["lanes"] <= 8  # two different segments of three beams, and perhaps the other request's
    assert line["queue_ms"] >= 0
    assert line["encode_ms"] > 0
    assert line["decode_ms"] > line["encode_ms"]
    assert line["duration_ms"] >= line["decode_ms"]
    assert line["source_tokens"] > 0 < line["target_tokens"]
    assert "trace_id" not in line
    assert SECRET not in lines.getvalue()


async def test_refusals_and_probes(start_service: Any, lines: Lines, eventually: Any) -> None:
    service = await start_service(api_key="right")
    await service.request("GET", "/health")
    await service.scrape()
    await service.request("POST", f"/translate?key={SECRET}", json={"text": SECRET})
    await service.request("GET", f"/{SECRET}")
    await eventually(lambda: len(lines.access) == 2)
    refused, lost = lines.access
    assert (refused["status"], refused["code"]) == (401, "unauthorized")
    assert "characters" not in refused
    assert (lost["status"], lost["route"]) == (404, "unmatched")
    assert SECRET not in lines.getvalue()
