"""DeepL's glossaries with its own client package: made, listed, applied, deleted, and nobody else's."""

from __future__ import annotations

import deepl
import pytest
import requests

from tests.dialects.clients import DeepL
from tests.dialects.conftest import API_KEY, Guarded
from tests.e2e.conftest import Daemon

ENTRIES = {"train station": "arrêt central", "coffee": "café noir & chaud"}


@pytest.fixture(scope="module")
def translator(daemon: Daemon) -> deepl.DeepLClient:
    return DeepL(daemon.url).package


@pytest.mark.proves("glossaries", "deepl")
def test_the_life_of_a_glossary(translator: deepl.DeepLClient) -> None:
    made = translator.create_glossary("Voyages", "EN", "FR", ENTRIES)
    assert (made.name, made.ready, made.source_lang, made.target_lang) == ("Voyages", True, "EN", "FR")
    assert made.entry_count == 2
    assert translator.get_glossary(made.glossary_id).creation_time == made.creation_time
    assert made.glossary_id in [item.glossary_id for item in translator.list_glossaries()]
    assert translator.get_glossary_entries(made) == ENTRIES

    text = ["Where is the train station?", "Train station", "It is raining."]
    found = translator.translate_text(text, source_lang="EN", target_lang="FR", glossary=made)
    assert "arrêt central" in found[0].text
    assert found[1].text == "Arrêt central"
    assert found[2].text == "Il pleut."
    assert [item.billed_characters for item in found] == [len(item) for item in text]

    page = "<p>I would like a coffee.</p>"
    (html,) = translator.translate_text([page], source_lang="EN", target_lang="FR", glossary=made, tag_handling="html")
    assert "café noir &amp; chaud" in html.text

    translator.delete_glossary(made)
    for gone in (lambda: translator.get_glossary(made.glossary_id), lambda: translator.delete_glossary(made)):
        with pytest.raises(deepl.GlossaryNotFoundException):
            gone()
    with pytest.raises(deepl.DeepLException, match="Not found"):
        translator.translate_text("Hi.", source_lang="EN", target_lang="FR", glossary=made)


def test_csv_and_pairs(translator: deepl.DeepLClient) -> None:
    made = translator.create_glossary_from_csv("CSV", "EN", "DE", 'station,"Halt, klein",EN,DE\nrain,Nässe\n')
    assert translator.get_glossary_entries(made) == {"station": "Halt, klein", "rain": "Nässe"}
    translator.delete_glossary(made)
    pairs = {(pair.source_lang, pair.target_lang) for pair in translator.get_glossary_languages()}
    assert ("en", "fr") in {(one.lower(), other.lower()) for one, other in pairs}
    assert len(pairs) == 12


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ("a\tb\na\tc", "line 2: this term was there before"),
        ("a", "line 1: expected a term and its translation"),
        ("a\t ", "line 1: expected a term and its translation"),
        ("a\tb\tc", "line 1: expected a term and its translation"),
        (f"{'a' * 1025}\tb", "line 1: a term is too long"),
        ("\n \n", "not 0"),
    ],
)
def test_entries_that_are_none(daemon: Daemon, entries: str, says: str) -> None:
    sent = {"name": "x", "source_lang": "en", "target_lang": "fr", "entries": entries}
    answer = requests.post(f"{daemon.url}/v2/glossaries", json=sent, timeout=60)
    assert answer.status_code == 400
    assert says in answer.json()["message"]


@pytest.mark.parametrize(("name", "says"), [("x" * 301, "at most 300"), ("a\0b", "control character")])
def test_names_that_are_none(daemon: Daemon, name: str, says: str) -> None:
    sent = {"name": name, "source_lang": "en", "target_lang": "fr", "entries": "a\tb"}
    answer = requests.post(f"{daemon.url}/v2/glossaries", json=sent, timeout=60)
    assert answer.status_code == 400
    assert says in answer.json()["message"]


def test_the_pair_must_be_the_glossary_s(translator: deepl.DeepLClient) -> None:
    made = translator.create_glossary("Pair", "EN", "FR", ENTRIES)
    with pytest.raises(deepl.DeepLException, match="another pair"):
        translator.translate_text("Hi.", source_lang="EN", target_lang="DE", glossary=made.glossary_id)
    translator.delete_glossary(made)


def test_nobody_sees_another_s_glossaries(guarded: Guarded) -> None:
    mine = DeepL(guarded.url, API_KEY).package
    other = DeepL(guarded.url, guarded.keys["deepl usage"]).package
    made = mine.create_glossary("Mine", "EN", "FR", ENTRIES)
    assert other.list_glossaries() == []
    with pytest.raises(deepl.GlossaryNotFoundException):
        other.get_glossary(made.glossary_id)
    with pytest.raises(deepl.GlossaryNotFoundException):
        other.delete_glossary(made)
    with pytest.raises(deepl.DeepLException, match="Not found"):
        other.translate_text("Hi.", source_lang="EN", target_lang="FR", glossary=made.glossary_id)
    assert mine.get_glossary_entries(made) == ENTRIES
