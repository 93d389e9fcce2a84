"""What every client package is there for: translations, whatever the texts."""

from __future__ import annotations

from urllib.error import HTTPError

import pytest

from tests.dialects.clients import Client, LibreTranslatePy
from tests.e2e.conftest import Daemon

FRENCH = {
    "Where is the train station?": "Où est la gare ?",
    "It is raining.": "Il pleut.",
    "Good morning.": "Bonjour.",
}
#: Come back as they are in any language.
UNTOUCHED = ("12:30", "   ", "🙂", "https://example.org/a?b=c&d=%20", "\n\n", "\u200b", "3.14 + 2 = 5.14")


@pytest.mark.proves("one text")
def test_one_text(kind: type[Client], daemon: Daemon) -> None:
    assert kind(daemon.url).translate(["Where is the train station?"]) == ["Où est la gare ?"]


@pytest.mark.proves("several texts")
def test_several_texts(kind: type[Client], daemon: Daemon) -> None:
    assert kind(daemon.url).translate(list(FRENCH)) == list(FRENCH.values())


@pytest.mark.proves("source detected")
def test_the_source_is_detected(kind: type[Client], daemon: Daemon) -> None:
    client = kind(daemon.url)
    assert client.translate(["Where is the train station?"], source=None) == ["Où est la gare ?"]
    assert client.translate(["Où est la gare ?"], "de", source=None) == ["Wo ist der Bahnhof?"]


@pytest.mark.proves("empty, blank and unusual texts")
def test_unusual_texts(kind: type[Client], daemon: Daemon) -> None:
    """Blank ones, numbers, links, pictures: as they were, in their place. Line breaks stay where they stood."""
    client = kind(daemon.url)
    assert client.translate(["Good morning.", *UNTOUCHED]) == ["Bonjour.", *UNTOUCHED]
    assert client.translate(list(UNTOUCHED), source=None) == list(UNTOUCHED)
    assert client.translate(["Good morning.\n\n\tIt is raining.\n"]) == ["Bonjour.\n\n\tIl pleut.\n"]
    assert client.translate(["🙂 Good morning."]) == ["🙂 Bonjour."]
    for text in ("café & crème <b> {name} %s", "naïve 𝒳 日本語 עברית", "Quote \" \\ / ' ` =+;"):
        (found,) = client.translate([text])
        assert found.strip()


@pytest.mark.proves("empty, blank and unusual texts")
def test_an_empty_text_in_a_list(kind: type[Client], daemon: Daemon) -> None:
    client = kind(daemon.url)
    if kind is LibreTranslatePy:  # sends one text at a time, and LibreTranslate refuses an empty one
        with pytest.raises(HTTPError, match="400"):
            client.translate([""])
        return
    assert client.translate(["Good morning.", "", "It is raining."]) == ["Bonjour.", "", "Il pleut."]


@pytest.mark.proves("very long lists")
def test_a_list_as_long_as_it_may_be(kind: type[Client], daemon: Daemon) -> None:
    """Fifty texts, which is all that DeepL takes at once; the same one many times over is translated once."""
    texts = [*FRENCH, "12:30"] * 12 + ["It is raining."] * 2
    expected = [FRENCH.get(text, text) for text in texts]
    assert kind(daemon.url).translate(texts) == expected
