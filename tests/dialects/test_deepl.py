"""DeepL's own client package."""

from __future__ import annotations

import deepl
import pytest
import requests

from tests.dialects.clients import DeepL
from tests.dialects.conftest import Guarded
from tests.e2e.conftest import Daemon


@pytest.fixture(scope="module")
def translator(daemon: Daemon) -> deepl.DeepLClient:
    return DeepL(daemon.url).package


def test_a_single_text_is_not_a_list(translator: deepl.DeepLClient) -> None:
    found = translator.translate_text("Good morning.", target_lang="FR")
    assert (found.text, found.detected_source_lang, found.billed_characters) == ("Bonjour.", "EN", 13)


@pytest.mark.parametrize("target", ["EN-US", "EN-GB", "en-us"])
def test_regional_targets(translator: deepl.DeepLClient, target: str) -> None:
    assert translator.translate_text("Bonjour.", target_lang=target).text == "Good morning."


@pytest.mark.proves("languages", "deepl")
def test_languages(translator: deepl.DeepLClient) -> None:
    sources = {language.code: language.name for language in translator.get_source_languages()}
    targets = {language.code: language.supports_formality for language in translator.get_target_languages()}
    assert sources == {"DE": "German", "EN": "English", "ES": "Spanish", "FR": "French"}
    assert targets == dict.fromkeys(("DE", "EN-GB", "EN-US", "ES", "FR"), False)
    for code in targets:
        assert translator.translate_text("12:30", target_lang=code).text == "12:30"


@pytest.mark.proves("HTML", "deepl")
@pytest.mark.parametrize("handling", ["html", "xml"])
def test_tags_are_kept(translator: deepl.DeepLClient, handling: str) -> None:
    text = '<p id="1">It is raining.</p><code>It is raining.</code><br/>Tom &amp; 3 &lt; 4'
    found = translator.translate_text(text, source_lang="EN", target_lang="FR", tag_handling=handling).text
    assert found.startswith('<p id="1">Il pleut.</p><code>It is raining.</code><br/>')
    assert "&amp;" in found
    assert "&lt;" in found


@pytest.mark.proves("usage", "deepl")
def test_usage(guarded: Guarded, daemon: Daemon) -> None:
    translator = DeepL(guarded.url, guarded.keys["deepl usage"]).package
    before = translator.get_usage()
    assert (before.character.count, before.character.limit) == (0, 1000)
    translator.translate_text(["Good morning.", "Bye."], source_lang="EN", target_lang="FR")
    assert translator.get_usage().character.count == 17
    free = DeepL(daemon.url).package.get_usage()
    assert free.character.valid
    assert not free.any_limit_reached


def test_what_tunes_deepl_s_models_is_accepted(translator: deepl.DeepLClient) -> None:
    found = translator.translate_text(
        "It is raining.",
        source_lang="EN",
        target_lang="FR",
        context="The weather report of a newspaper.",
        split_sentences="nonewlines",
        preserve_formatting=True,
        formality="prefer_more",
        outline_detection=False,
        model_type="prefer_quality_optimized",
        tag_handling="html",
        non_splitting_tags="b,i",
        splitting_tags=["p"],
    )
    assert found.text == "Il pleut."


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"formality": "more"}, "formality is not supported"),
        ({"ignore_tags": ["x"]}, "ignore_tags is not supported"),
        ({"custom_instructions": ["Be brief."]}, "custom_instructions is not supported"),
        ({"tag_handling": "markdown"}, "tag_handling"),
        ({"source_lang": "XX"}, "Value for 'source_lang' not supported"),
        ({"source_lang": "RU"}, "Value for 'source_lang' not supported"),
    ],
)
def test_what_cannot_be_done_is_refused(translator: deepl.DeepLClient, options: dict, says: str) -> None:
    with pytest.raises(deepl.DeepLException, match=says) as caught:
        translator.translate_text("Good morning.", target_lang="FR", **options)
    assert caught.value.http_status_code == 400


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a"] * 51, "51 texts; at most 50"),
        ([None], r"text\[0\]: expected a string, got null"),
        (["a", 7], r"text\[1\]: expected a string, got a number"),
        ([], "text is empty"),
    ],
)
def test_texts_that_are_none(translator: deepl.DeepLClient, texts: list, says: str) -> None:
    with pytest.raises(deepl.DeepLException, match=says) as caught:
        translator.translate_text(texts, target_lang="FR")
    assert caught.value.http_status_code == 400


def test_forms_as_older_clients_send_them(daemon: Daemon) -> None:
    form = [("text", "Good morning."), ("text", "It is raining."), ("target_lang", "DE"), ("tag_handling", "html")]
    answer = requests.post(f"{daemon.url}/v2/translate", data=form, timeout=60).json()
    assert answer == {
        "translations": [
            {"detected_source_language": "EN", "text": "Guten Morgen.", "billed_characters": 13},
            {"detected_source_language": "EN", "text": "Es regnet.", "billed_characters": 14},
        ]
    }


@pytest.mark.parametrize("path", ["/v2/nothing", "/v3/nothing"])
def test_what_is_not_there(daemon: Daemon, path: str) -> None:
    answer = requests.get(daemon.url + path, timeout=60)
    assert (answer.status_code, answer.json()["message"]) == (404, "Not found")
