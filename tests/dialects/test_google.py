"""Google's client package for its API version 2, and what its users send without it."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from google.api_core.exceptions import BadRequest
from google.cloud import translate_v2

from tests.dialects.clients import Google
from tests.dialects.conftest import API_KEY, Guarded
from tests.e2e.conftest import Daemon

PATH = "/language/translate/v2"


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> translate_v2.Client:
    return Google(daemon.url).package


def test_one_text_comes_with_its_language(client: translate_v2.Client) -> None:
    found = client.translate("Where is the train station?", target_language="fr")
    assert found == {
        "translatedText": "Où est la gare ?",
        "detectedSourceLanguage": "en",
        "input": "Where is the train station?",
    }
    given = client.translate("It is raining.", target_language="fr", source_language="en", model="nmt")
    assert given == {"translatedText": "Il pleut.", "model": "nmt", "input": "It is raining."}
    assert client.translate("12:30", target_language="fr")["detectedSourceLanguage"] == "und"


@pytest.mark.proves("HTML", "google-cloud-translate")
def test_texts_are_html_unless_said_otherwise(client: translate_v2.Client) -> None:
    text = "<p>It is raining.</p> 3 &lt; 4"
    assert client.translate(text, target_language="fr")["translatedText"] == "<p>Il pleut.</p> 3 &lt; 4"
    text = "It is raining. 1 < 2 & 3"
    assert client.translate(text, target_language="fr")["translatedText"] == "Il pleut. 1 &lt; 2 &amp; 3"
    assert client.translate(text, target_language="fr", format_="text")["translatedText"] == "Il pleut. 1 < 2 & 3"


@pytest.mark.proves("languages", "google-cloud-translate")
def test_languages(client: translate_v2.Client, daemon: Daemon) -> None:
    assert client.get_languages() == [
        {"language": "de", "name": "German"},
        {"language": "en", "name": "English"},
        {"language": "es", "name": "Spanish"},
        {"language": "fr", "name": "French"},
    ]
    bare = requests.get(f"{daemon.url}{PATH}/languages", timeout=60).json()
    assert bare["data"]["languages"][0] == {"language": "de"}


@pytest.mark.proves("detection", "google-cloud-translate")
def test_detection(client: translate_v2.Client) -> None:
    found = client.detect_language(["Where is the train station?", "Wo ist der Bahnhof?", "12:30"])
    assert [item["language"] for item in found] == ["en", "de", "und"]
    assert found[0]["confidence"] > 0.5
    assert client.detect_language("Où est la gare ?")["language"] == "fr"


@pytest.mark.parametrize(
    ("texts", "options", "says"),
    [
        (["a"] * 129, {}, "Too many text segments"),
        ([None], {}, r"q\[0\]: expected a string, got null"),
        ([], {}, "Required Text"),
        ("a", {"target_language": "ru"}, "not trained on Russian"),
        ("a", {"source_language": "zz"}, "unknown language 'zz'"),
        ("a", {"format_": "markdown"}, "format"),
    ],
)
def test_errors(client: translate_v2.Client, texts: Any, options: dict[str, str], says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        client.translate(texts, **{"target_language": "fr", **options})
    assert caught.value.errors[0]["domain"] == "global"


def test_the_longest_list(client: translate_v2.Client) -> None:
    found = client.translate(["It is raining."] * 128, target_language="fr", source_language="en")
    assert {item["translatedText"] for item in found} == {"Il pleut."}


@pytest.mark.parametrize("place", ["params", "data", "json"])
def test_every_way_to_send_it(daemon: Daemon, place: str) -> None:
    sent = {"q": ["It is raining.", "12:30"], "target": "de", "source": "en", "format": "text"}
    answer = requests.post(daemon.url + PATH, timeout=60, **{place: sent}).json()
    assert answer == {"data": {"translations": [{"translatedText": "Es regnet."}, {"translatedText": "12:30"}]}}
    if place == "params":
        assert requests.get(daemon.url + PATH, params=sent, timeout=60).json() == answer


def test_keys_in_query_and_header(guarded: Guarded) -> None:
    sent = {"q": "Hello.", "target": "fr", "source": "en"}
    url = guarded.url + PATH
    for options in ({"params": {"key": API_KEY}}, {"headers": {"X-Goog-Api-Key": API_KEY}}):
        assert requests.post(url, json=sent, timeout=60, **options).status_code == 200
    for options in ({"params": {"key": "wrong"}}, {}):
        answer = requests.post(url, json=sent, timeout=60, **options)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["status"]) == (401, 401, "UNAUTHENTICATED")
