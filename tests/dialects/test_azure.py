"""Azure's client package for version 3.0, and what its users send without it."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from azure.ai.translation.text import TextTranslationClient
from azure.core.exceptions import HttpResponseError

from tests.dialects.clients import Azure
from tests.dialects.conftest import API_KEY, Guarded
from tests.e2e.conftest import Daemon

VERSION = {"api-version": "3.0"}


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> TextTranslationClient:
    return Azure(daemon.url).package


def code_of(error: HttpResponseError) -> int:
    return error.model["error"]["code"]


@pytest.mark.proves("several targets", "azure-ai-translation-text")
def test_several_targets(client: TextTranslationClient) -> None:
    first, second = client.translate(body=["It is raining.", "Good morning."], to_language=["fr", "de"])
    assert [(item.to, item.text) for item in first.translations] == [("fr", "Il pleut."), ("de", "Es regnet.")]
    assert [item.text for item in second.translations] == ["Bonjour.", "Guten Morgen."]
    assert first.detected_language.language == "en"
    assert 0.5 < first.detected_language.score <= 1
    (given,) = client.translate(body=["It is raining."], to_language=["fr"], from_language="en")
    assert given.detected_language is None


@pytest.mark.proves("HTML", "azure-ai-translation-text")
def test_html(client: TextTranslationClient) -> None:
    (found,) = client.translate(
        body=["<p>It is raining.</p>"], to_language=["fr"], from_language="en", text_type="Html"
    )
    assert found.translations[0].text == "<p>Il pleut.</p>"


def test_a_fallback_where_nothing_is_detected(client: TextTranslationClient) -> None:
    (found,) = client.translate(body=["Ok"], to_language=["fr"], suggested_from="de")
    assert found.translations[0].text


@pytest.mark.proves("languages", "azure-ai-translation-text")
def test_languages(client: TextTranslationClient) -> None:
    found = client.get_supported_languages()
    assert set(found.translation) == {"de", "en", "es", "fr"}
    assert (found.translation["fr"].name, found.translation["fr"].native_name, found.translation["fr"].dir) == (
        "French",
        "Français",
        "ltr",
    )
    assert client.get_supported_languages(scope="translation").dictionary is None
    with pytest.raises(HttpResponseError) as caught:
        client.get_supported_languages(scope="klingon")
    assert code_of(caught.value) == 400001


@pytest.mark.proves("sentence boundaries", "azure-ai-translation-text")
def test_sentence_boundaries(client: TextTranslationClient) -> None:
    texts = ["Hello there. How are you?", "Où est la gare ?", "", "12:30"]
    found = client.find_sentence_boundaries(body=texts)
    assert [sum(item.sent_len) for item in found] == [len(text) for text in texts]
    assert found[0].sent_len == [13, 12]
    assert [item.detected_language.language for item in found[:2]] == ["en", "fr"]
    (given,) = client.find_sentence_boundaries(body=["Wo ist er? Dort."], language="de")
    assert (given.sent_len, given.detected_language) == ([11, 5], None)


@pytest.mark.proves("detection", "azure-ai-translation-text")
def test_detection(daemon: Daemon) -> None:
    """The package lacks this call; it was in the API all the same."""
    body = [{"Text": "Where is the train station?"}, {"text": "12:30"}]
    answer = requests.post(f"{daemon.url}/detect", params=VERSION, json=body, timeout=60)
    known, unknown = answer.json()
    assert (known["language"], known["isTranslationSupported"]) == ("en", True)
    assert unknown["score"] == 0
    assert answer.headers["X-RequestId"]


@pytest.mark.parametrize(
    ("body", "options", "code"),
    [
        (["a"], {"to_language": []}, 400036),
        (["a"], {"from_language": "zz"}, 400035),
        (["a"], {"to_language": ["fr", "zz"]}, 400036),
        (["a"], {"to_language": ["ru"]}, 400036),
        (["a"], {"to_language": ["fr"] * 17}, 400036),
        (["a"], {"text_type": "markdown"}, 400071),
        (["a"] * 129, {}, 400072),
        ([], {}, 400005),
        ([None], {}, 400005),
    ],
)
def test_errors(client: TextTranslationClient, body: Any, options: dict[str, Any], code: int) -> None:
    with pytest.raises(HttpResponseError) as caught:
        client.translate(body=body, **{"to_language": ["fr"], **options})
    assert (caught.value.status_code, code_of(caught.value)) == (400, code)
    assert caught.value.response.headers["X-RequestId"]


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ({"api-version": "2.0", "to": "fr"}, [{"Text": "a"}], 400021),
        ({"api-version": "", "to": "fr"}, [{"Text": "a"}], 400021),
        ({"to": "fr"}, [{"Text": "a"}], 400021),
        ({**VERSION, "to": "fr"}, {"Text": "a"}, 400005),
        ({**VERSION, "to": "fr"}, [{"text": "a", "Text": "b"}], 400005),
        ({**VERSION, "to": "fr"}, [{"Txt": "a"}], 400005),
        ({**VERSION, "to": "fr"}, "text", 400005),
    ],
)
def test_bodies_and_versions_that_are_none(daemon: Daemon, query: dict[str, str], body: Any, code: int) -> None:
    headers = {"Ocp-Apim-Subscription-Key": "k"}
    answer = requests.post(f"{daemon.url}/translate", params=query, json=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_malformed_json_and_no_version(daemon: Daemon) -> None:
    headers = {"Content-Type": "application/json", "Ocp-Apim-Subscription-Key": "k"}
    answer = requests.post(f"{daemon.url}/translate?api-version=3.0&to=fr", data="[{", headers=headers, timeout=60)
    assert answer.json()["error"]["code"] == 400074
    answer = requests.post(f"{daemon.url}/breaksentence", json=[{"Text": "a"}], headers=headers, timeout=60)
    assert answer.json()["error"]["code"] == 400021


def test_keys(guarded: Guarded) -> None:
    def status(**headers: str) -> int:
        query = {**VERSION, "to": "fr", "from": "en"}
        body = [{"Text": "Hello."}]
        answer = requests.post(f"{guarded.url}/translate", params=query, json=body, headers=headers, timeout=60)
        assert answer.status_code == 200 or answer.json()["error"]["code"] == 401000
        return answer.status_code

    key = {"Ocp-Apim-Subscription-Key": API_KEY, "Ocp-Apim-Subscription-Region": "westeurope"}
    assert status(**key) == 200
    assert status(**{"Ocp-Apim-Subscription-Key": "wrong"}) == 401
    assert status() == 401
