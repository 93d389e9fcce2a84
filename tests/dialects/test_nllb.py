"""nllb-serve and nllb-api have no client packages: their users send plain HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.dialects.conftest import API_KEY, Guarded
from tests.e2e.conftest import Daemon

PAIR = {"src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}
API = "/api/v4/translator"


def ask(method: str, url: str, **options: Any) -> tuple[int, Any]:
    answer = requests.request(method, url, timeout=60, **options)
    return answer.status_code, answer.json()


@pytest.mark.proves("one text", "nllb-serve")
@pytest.mark.proves("several texts", "nllb-serve")
@pytest.mark.proves("empty, blank and unusual texts", "nllb-serve")
@pytest.mark.parametrize("place", ["json", "data", "params"])
def test_serve(daemon: Daemon, place: str) -> None:
    sent = {"source": ["It is raining.", "12:30", ""], **PAIR}
    for method in ("POST", "GET")[: 2 if place == "params" else 1]:
        status, answer = ask(method, f"{daemon.url}/translate", **{place: sent})
        assert status == 200
        assert answer.pop("time_taken") >= 0
        assert answer == {**sent, "translation": ["Il pleut.", "12:30", ""], "time_units": "s"}
    _, single = ask("POST", f"{daemon.url}/translate", **{place: {"source": "It is raining.", **PAIR}})
    assert (single["source"], single["translation"]) == (["It is raining."], ["Il pleut."])


@pytest.mark.proves("very long lists", "nllb-serve")
def test_a_long_list(daemon: Daemon) -> None:
    _, answer = ask("POST", f"{daemon.url}/translate", json={"source": ["It is raining."] * 128, **PAIR})
    assert answer["translation"] == ["Il pleut."] * 128


@pytest.mark.proves("unknown language", "nllb-serve")
@pytest.mark.proves("text too long", "nllb-serve")
@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"tgt_lang": "xx_Yyyy"}, 400, "unknown_language", "tgt_lang"),
        ({"src_lang": ""}, 400, "missing_field", "src_lang"),
        ({"source": None}, 400, "missing_field", "source"),
        ({"source": []}, 400, "empty_text", "source"),
        ({"source": [None]}, 400, "invalid_type", "source[0]"),
        ({"source": "a" * 5001}, 413, "text_too_long", "source"),
        ({"source": ["a"] * 129}, 413, "too_many_texts", "source"),
        ({"tgt_lang": "rus_Cyrl"}, 422, "unsupported_pair", "tgt_lang"),
    ],
)
def test_errors_of_serve(daemon: Daemon, changes: dict[str, Any], status: int, code: str, field: str) -> None:
    got, answer = ask("POST", f"{daemon.url}/translate", json={"source": "a", **PAIR, **changes})
    assert (got, answer["error"]["code"], answer["error"]["field"]) == (status, code, field)


@pytest.mark.proves("one text", "nllb-api")
@pytest.mark.proves("empty, blank and unusual texts", "nllb-api")
def test_api(daemon: Daemon) -> None:
    sent = {"text": "It is raining.", "source": "eng_Latn", "target": "fra_Latn"}
    assert ask("GET", daemon.url + API, params=sent) == (200, {"result": "Il pleut."})
    assert ask("POST", daemon.url + API, json=sent) == (200, {"result": "Il pleut."})
    assert ask("GET", daemon.url + API, params={"text": "It is raining."}) == (200, {"result": "Está lloviendo."})
    assert ask("POST", daemon.url + API, json={**sent, "text": " 🙂\n12:30 "}) == (200, {"result": " 🙂\n12:30 "})


@pytest.mark.proves("unknown language", "nllb-api")
@pytest.mark.proves("text too long", "nllb-api")
@pytest.mark.parametrize(
    ("changes", "status"),
    [({"text": ""}, 400), ({"text": ["a"]}, 400), ({"target": "zz"}, 400), ({"text": "a" * 5001}, 413)],
)
def test_errors_of_api(daemon: Daemon, changes: dict[str, Any], status: int) -> None:
    got, answer = ask("POST", daemon.url + API, json={"text": "a", **changes})
    assert (got, answer["status_code"], set(answer)) == (status, status, {"status_code", "detail"})


@pytest.mark.proves("wrong key", "nllb-serve", "nllb-api")
def test_keys(guarded: Guarded) -> None:
    sent = {"source": "Hello.", **PAIR}
    for headers, status in (({"X-API-Key": API_KEY}, 200), ({"X-API-Key": "wrong"}, 401), ({}, 401)):
        assert ask("POST", f"{guarded.url}/translate", json=sent, headers=headers)[0] == status
        assert ask("GET", guarded.url + API, params={"text": "Hello."}, headers=headers)[0] == status
