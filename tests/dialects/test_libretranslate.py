"""LibreTranslate's client packages, and what its users send without one."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import libretranslate_aio
import pytest
import requests
from deep_translator.exceptions import LanguageNotSupportedException

from tests.dialects.clients import DeepTranslator, LibreTranslateAio, LibreTranslatePy
from tests.dialects.conftest import API_KEY, Guarded
from tests.e2e.conftest import Daemon

CODES = {"de", "en", "es", "fr"}


@pytest.fixture(scope="module")
def aio(daemon: Daemon) -> libretranslate_aio.LibreTranslate:
    return LibreTranslateAio(daemon.url).package


def post(daemon: Daemon, path: str, **options: Any) -> tuple[int, Any]:
    answer = requests.post(daemon.url + path, timeout=60, **options)
    return answer.status_code, answer.json()


@pytest.mark.proves("languages", "libretranslatepy", "libretranslate-aio")
def test_languages(daemon: Daemon, aio: libretranslate_aio.LibreTranslate) -> None:
    listed = LibreTranslatePy(daemon.url).package.languages()
    assert {language["code"]: language["flores"] for language in listed} == {
        "de": "deu_Latn",
        "en": "eng_Latn",
        "es": "spa_Latn",
        "fr": "fra_Latn",
    }
    assert {language.code for language in aio.languages()} == CODES
    assert all(set(language.targets) == CODES for language in aio.languages())


@pytest.mark.proves("detection", "libretranslatepy", "libretranslate-aio")
def test_detection(daemon: Daemon, aio: libretranslate_aio.LibreTranslate) -> None:
    best, *_ = LibreTranslatePy(daemon.url).package.detect("Where is the train station?")
    assert best["language"] == "en"
    assert 50 < best["confidence"] <= 100
    assert aio.detect("Wo ist der Bahnhof?")[0].language == "de"
    assert aio.detect("12:30")[0] == libretranslate_aio.Detection(confidence=0.0, language="en")


def test_the_detected_language_is_told_of_auto_alone(aio: libretranslate_aio.LibreTranslate) -> None:
    found = aio.translate("Where is the train station?", "auto", "fr")
    assert found.detected_language is not None
    assert found.detected_language.language == "en"
    assert 50 < found.detected_language.confidence <= 100
    assert aio.translate("Where is the train station?", "en", "fr").detected_language is None
    several = aio.translate(["It is raining.", "12:30"], "auto", "fr").detected_language
    assert [item.language for item in several] == ["en", "en"]
    assert several[1].confidence == 0


@pytest.mark.proves("alternatives", "libretranslate-aio")
def test_alternatives(aio: libretranslate_aio.LibreTranslate) -> None:
    found = aio.translate("Good morning.", "en", "fr", alternatives=2)
    assert found.translated_text == "Bonjour."
    assert 1 <= len(found.alternatives) <= 2
    assert found.translated_text not in found.alternatives
    assert aio.translate("Good morning.", "en", "fr").alternatives is None
    assert len(aio.translate("Good morning.", "en", "fr", alternatives=1000).alternatives) <= 8


@pytest.mark.proves("HTML", "libretranslate-aio")
def test_html(aio: libretranslate_aio.LibreTranslate) -> None:
    found = aio.translate("<p>It is raining.</p>", "en", "fr", format="html")
    assert found.translated_text == "<p>Il pleut.</p>"


async def test_the_asynchronous_client(daemon: Daemon) -> None:
    async with libretranslate_aio.AsyncLibreTranslate(daemon.url) as client:
        found = await asyncio.gather(*(client.translate("It is raining.", "en", to) for to in ("fr", "de")))
        assert [item.translated_text for item in found] == ["Il pleut.", "Es regnet."]
        with pytest.raises(libretranslate_aio.BadRequestError, match=r"^zz is not supported$"):
            await client.translate("It is raining.", "en", "zz")


def test_settings_of_the_front_end(aio: libretranslate_aio.LibreTranslate, guarded: Guarded) -> None:
    told = aio.frontend_settings()
    assert (told.char_limit, told.key_required, told.suggestions) == (5000, False, False)
    assert told.language.source.code == "auto"
    assert LibreTranslateAio(guarded.url).package.frontend_settings().key_required
    assert aio.health()


def test_what_is_not_done_here(aio: libretranslate_aio.LibreTranslate) -> None:
    with pytest.raises(libretranslate_aio.ForbiddenError, match="Suggestions are disabled"):
        aio.suggest("Hello", "Bonjour", "en", "fr")
    with pytest.raises(libretranslate_aio.LibreTranslateError, match="files are not translated") as caught:
        aio.translate_file(io.BytesIO(b"Good morning."), "en", "fr")
    assert caught.value.status_code == 501


def test_deep_translator_by_name(daemon: Daemon) -> None:
    package = DeepTranslator(daemon.url).package("French", "English")
    assert package.translate("It is raining.") == "Il pleut."
    assert package.translate("") == ""
    with pytest.raises(LanguageNotSupportedException):
        DeepTranslator(daemon.url).package("klingon")


def test_a_text_as_long_as_it_may_be_in_the_query(daemon: Daemon) -> None:
    """deep-translator writes its text into the query: nine bytes a character."""
    text = "日本語です。" * 833
    assert len(DeepTranslator(daemon.url).translate([text])[0]) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"json": {"q": "It is raining.", "source": "en", "target": "fr"}},
        {"json": {"q": "It is raining.", "source": "en", "target": "fr", "alternatives": "0", "format": None}},
        {"json": {"q": "It is raining.", "source": "eng_Latn", "target": "French", "unheard": 1}},
        {"data": {"q": "It is raining.", "source": "en", "target": "fr"}},
        {"params": {"q": "It is raining.", "source": "en", "target": "fr"}},
        {"params": {"source": "en", "target": "fr"}, "data": {"q": "It is raining."}},
        {"files": {"q": (None, "It is raining."), "source": (None, "en"), "target": (None, "fr")}},
    ],
)
def test_every_way_to_send_it(daemon: Daemon, options: dict[str, Any]) -> None:
    assert post(daemon, "/translate", **options) == (200, {"translatedText": "Il pleut."})


def test_get_with_a_query(daemon: Daemon) -> None:
    query = {"q": "It is raining.", "source": "en", "target": "fr"}
    assert requests.get(f"{daemon.url}/translate", params=query, timeout=60).json() == {"translatedText": "Il pleut."}


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"source": "en", "target": "fr"}, "Invalid request: missing q parameter"),
        ({"q": "", "source": "en", "target": "fr"}, "Invalid request: missing q parameter"),
        ({"q": None, "source": "en", "target": "fr"}, "Invalid request: missing q parameter"),
        ({"q": [], "source": "en", "target": "fr"}, "Invalid request: missing q parameter"),
        ({"q": "Hi", "target": "fr"}, "Invalid request: missing source parameter"),
        ({"q": "Hi", "source": "en"}, "Invalid request: missing target parameter"),
        ({"q": "Hi", "source": "zz", "target": "fr"}, "zz is not supported"),
        ({"q": "Hi", "source": "en", "target": "zz"}, "zz is not supported"),
        ({"q": "Hi", "source": "en", "target": "ru"}, "ru is not supported"),
        ({"q": "Hi", "source": "en", "target": "auto"}, "auto is not supported"),
        ({"q": "Hi", "source": "en", "target": "fr", "format": "md"}, "md format is not supported"),
        ({"q": ["a"] * 129, "source": "en", "target": "fr"}, "Invalid request: request (129) exceeds text limit (128)"),
        ({"q": ["a", None], "source": "en", "target": "fr"}, "q[1]: expected a string, got null"),
        ({"q": {"a": 1}, "source": "en", "target": "fr"}, "q: expected a string or an array of strings, got an object"),
        ({"q": "Hi", "source": ["en"], "target": "fr"}, "source: expected a string, got an array"),
        ({"q": "Hi", "source": "en", "target": "fr", "alternatives": "many"}, "alternatives: expected an integer"),
        ({"q": "Hi", "source": "en", "target": "fr", "api_key": 5}, "api_key: expected a string"),
    ],
)
def test_error_texts_are_libretranslate_s(daemon: Daemon, sent: dict[str, Any], says: str) -> None:
    status, answer = post(daemon, "/translate", json=sent)
    assert (status, set(answer)) == (400, {"error"})
    assert answer["error"].startswith(says)


def test_a_form_with_nothing_in_it(daemon: Daemon) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/translate", "/detect"):
        assert post(daemon, path, data="", headers=headers) == (400, {"error": "Invalid request: missing q parameter"})


def test_json_that_is_said_to_be_a_form(daemon: Daemon) -> None:
    """What `curl -d` does of itself."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer = post(daemon, "/translate", data='{"q": "Hi", "source": "en", "target": "fr"}', headers=headers)
    assert (status, set(answer)) == (415, {"error"})
    assert "application/json" in answer["error"]


def test_keys_in_body_query_and_header(guarded: Guarded) -> None:
    sent = {"q": "Hello.", "source": "en", "target": "fr"}
    good = (200, {"translatedText": "Hello."})
    wrong = (403, {"error": "Invalid API key"})
    none = (403, {"error": "Please contact the server operator to get an API key"})
    for path, expected in (("/translate", good), ("/suggest", None)):
        for place in ("json", "data", "params"):
            answered = post(guarded.daemon, path, **{place: {**sent, "api_key": API_KEY}})
            assert answered == (expected or (403, {"error": "Suggestions are disabled on this server."}))
            assert post(guarded.daemon, path, **{place: {**sent, "api_key": "wrong"}}) == wrong
            assert post(guarded.daemon, path, **{place: sent}) == none
    assert post(guarded.daemon, "/translate", json=sent, headers={"Authorization": f"Bearer {API_KEY}"}) == good
    assert post(guarded.daemon, "/detect", json={"q": "Hello."}) == none
