"""The real daemon with the demonstration model over HTTP: what a stranger's first requests meet."""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


def test_a_sentence_is_translated(daemon: Any) -> None:
    answer = daemon.translate("They could go home.", "eng_Latn", "fra_Latn")
    assert answer.status == 200
    text = answer.json["translated_text"]
    assert text
    assert text != "They could go home."
    assert answer.json["translations"][0]["source_lang"] == "eng_Latn"
    assert answer.json["model"] == "demo"
    assert answer.headers["x-request-id"]


def test_the_same_request_gets_the_same_answer(daemon: Any) -> None:
    one, other = (daemon.translate("Do you want to leave this page?", "en", "de").json for _ in range(2))
    assert one["translated_text"] == other["translated_text"]


def test_a_list_in_several_directions(daemon: Any) -> None:
    texts = ["They could go home.", "", "It is a pity.", "  "]
    for source, target in (("en", "fr"), ("English", "es"), ("eng_Latn", "deu_Latn")):
        answer = daemon.translate(texts, source, target)
        assert answer.status == 200
        items = [item["text"] for item in answer.json["translations"]]
        assert len(items) == 4
        assert (items[1], items[3]) == ("", "  ")
        assert items[0]
        assert items[2]


def test_company_does_not_change_a_translation(daemon: Any) -> None:
    texts = ["They could go home.", "Prices are too high.", "My mother sometimes orders a pizza.", "Add return."]
    alone = [daemon.translate(text, "en", "fr").json["translated_text"] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: daemon.translate(text, "en", "fr").json["translated_text"], texts * 4))
    assert together == alone * 4


def test_a_document_comes_back_with_every_sentence_in_it(daemon: Any) -> None:
    text = "\n".join(f"We counted {number} cars. Then we went home." for number in range(1, 41))
    answer = daemon.translate(text, "en", "fr")
    assert answer.status == 200
    assert answer.json["usage"]["segments"] == 80
    lines = answer.json["translated_text"].split("\n")
    assert len(lines) == 40
    assert all(line.strip() for line in lines)


def test_the_language_is_detected(daemon: Any) -> None:
    text = "Wir müssen morgen früh aufstehen, weil der Zug nach Berlin schon um sechs Uhr fährt."
    answer = daemon.translate(text, "auto", "en")
    assert answer.status == 200
    (item,) = answer.json["translations"]
    assert item["source_lang"] == "deu_Latn"
    assert item["detected_confidence"] > 0.5


def test_a_language_the_model_does_not_know_is_refused(daemon: Any) -> None:
    answer = daemon.translate("Hello.", "en", "ja")
    assert (answer.status, answer.json["error"]["code"]) == (422, "unsupported_pair")
    assert answer.json["error"]["field"] == "target_lang"


def test_alternatives(daemon: Any) -> None:
    answer = daemon.translate("They could go home.", "en", "fr", num_beams=4, alternatives=3)
    (item,) = answer.json["translations"]
    assert len(item["alternatives"]) == 3
    assert item["alternatives"][0] == item["text"]


def test_streaming(daemon: Any) -> None:
    body = {"text": "They could go home.\n\nIt is a pity.", "source_lang": "en", "target_lang": "fr", "stream": True}
    answer = daemon.request("POST", "/translate", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.body.decode())
    assert [name for name, _ in events] == ["segment", "segment", "done"]
    streamed = "".join(json.loads(data)["text"] for name, data in events if name == "segment")
    del body["stream"]
    assert streamed == daemon.request("POST", "/translate", body).json["translated_text"]


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200), ("/health", 200), ("/nothing", 404)])
def test_paths(daemon: Any, path: str, status: int) -> None:
    assert daemon.request("GET", path).status == status


def test_languages_are_the_model_s(daemon: Any) -> None:
    answer = daemon.request("GET", "/languages").json
    assert {"eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn"} <= {item["flores"] for item in answer}
    codes = {item["code"] for item in answer}
    assert all(set(item["targets"]) == codes for item in answer)


def test_the_page_is_there(daemon: Any) -> None:
    answer = daemon.request("GET", "/")
    assert answer.status == 200
    assert b"<textarea" in answer.body


def test_metrics(daemon: Any) -> None:
    daemon.translate("They could go home.", "en", "es")
    text = daemon.get_metrics()
    for name in ("translation_requests_total", "nllbd_tokens_total", "nllbd_step_duration_seconds_count"):
        value = re.search(rf"^{name}(?:{{.*}})? (\S+)", text, re.MULTILINE)
        assert value, name
        assert float(value[1]) > 0, name
    for name in ("system_cpu_usage_percent", "system_memory_usage_bytes", "gpu_memory_usage_bytes"):
        assert re.search(rf"^{name} \S+", text, re.MULTILINE)


def test_a_client_that_leaves_frees_the_engine(daemon: Any) -> None:
    text = " ".join(f"Sentence number {number} of a long text is here." for number in range(60))
    body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr", "num_beams": 8}).encode()
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        head = f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        _wait_for(daemon, r"^nllbd_num_sequences_running [1-9]")
    _wait_for(daemon, r"^nllbd_num_sequences_running 0")
    assert re.search(r"^nllbd_cancelled_total [1-9]", daemon.get_metrics(), re.MULTILINE)


def _wait_for(daemon: Any, pattern: str) -> None:
    end = time.monotonic() + 60
    while not re.search(pattern, daemon.get_metrics(), re.MULTILINE):
        assert time.monotonic() < end, pattern
        time.sleep(0.01)


def test_no_text_is_in_the_log(daemon: Any) -> None:
    secret = "Archaeopteryx"
    daemon.translate(f"The {secret} could fly.", "en", "fr")
    daemon.translate("Hello.", "en", secret)
    daemon.request("GET", f"/{secret}?q={secret}")
    daemon.request("POST", "/translate", f'{{"text": "{secret}'.encode())
    assert '"route":"/translate"' in daemon.log
    assert secret not in daemon.log
