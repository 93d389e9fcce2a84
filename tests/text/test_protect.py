from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.protect import PLACEHOLDER_LOST, Restored, Way, ways
from nllbd.text.spans import find_spans
from nllbd.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(read_checkpoint(DEMO_FOLDER))


def kinds(core: str) -> list[str]:
    return [way.kind for way in ways(core, TOKENIZER)]


def way(core: str, kind: str) -> Way:
    return next(way for way in ways(core, TOKENIZER) if way.kind == kind)


def translate(core: str, model) -> Restored:
    """As the translator does it."""
    for way in ways(core, TOKENIZER):
        restored = way.restore([model(text) for text in way.texts])
        if restored.is_complete:
            break
    return restored


def round_trip(text: str) -> str:
    """The identity as the demonstration model would do it at best: what it cannot spell is lost."""
    return TOKENIZER.decode(TOKENIZER.encode(text, "eng_Latn"))


def test_plain_text_goes_as_it_is() -> None:
    assert [(way.kind, way.texts) for way in ways("Good morning.", TOKENIZER)] == [("raw", ("Good morning.",))]
    assert translate("Good morning.", lambda _: "Bonjour.") == Restored("Bonjour.")


def test_known_characters_are_tried_raw_first() -> None:
    assert kinds("See www.example.org for more.") == ["raw", "masked", "split"]
    assert kinds("Hello {name}.") == ["masked", "split"]  # the demonstration vocabulary has no braces


def test_masks() -> None:
    masked = way("Hello {name}, you have %d messages.", "masked")
    assert masked.texts == ("Hello (1), you have (2) messages.",)
    assert masked.restore(["Vous avez (2) messages, (1)."]) == Restored("Vous avez %d messages, {name}.")
    assert masked.restore(["Bonjour ( 1 ), vous en avez （2）."]).text == "Bonjour {name}, vous en avez %d."
    for lost in ("Bonjour (1).", "Bonjour (1) (1) (2).", "Bonjour.", ""):
        assert masked.restore([lost]).warnings == (PLACEHOLDER_LOST,)


def test_masks_avoid_the_numbers_of_the_text() -> None:
    masked = way("See (1) and {x} and (3) and {y}.", "masked")
    assert masked.texts == ("See (1) and (2) and (3) and (4).",)
    assert masked.restore(["Voir (1) et (2) et (3) et (4)."]).text == "Voir (1) et {x} et (3) et {y}."


def test_raw_is_checked() -> None:
    raw = way("See www.example.org for more.", "raw")
    assert raw.restore(["Voir www.example.org pour plus."]).is_complete
    for lost in ("Voir www.exemple.org pour plus.", "Voir www.example.orgpour plus.", "Voir."):
        assert raw.restore([lost]).warnings == (PLACEHOLDER_LOST,)


def test_tags_must_keep_what_they_enclose() -> None:
    masked = way("Click <b>Save</b> to continue.", "masked")
    assert masked.restore(["Cliquez sur (1)Enregistrer(2)."]).text == "Cliquez sur <b>Enregistrer</b>."
    assert not masked.restore(["Cliquez sur (1) (2) pour continuer."]).is_complete
    assert not masked.restore(["Cliquez sur (2)Enregistrer(1)."]).is_complete


def test_split_always_works() -> None:
    split = way("Click <b>Save</b> to continue.", "split")
    assert split.texts == ("Click", "Save", "to continue.")
    assert split.restore(["Cliquez", "Enregistrer", "pour continuer."]) == Restored(
        "Cliquez <b>Enregistrer</b> pour continuer.", ("placeholder_split",)
    )


def test_unknown_words_and_symbols_survive() -> None:
    assert translate("My name is 王小明.", lambda _: "Je m'appelle (1).") == Restored("Je m'appelle 王小明.")
    assert translate("My name is 王小明.", lambda _: "Je m'appelle ⁇.") == Restored("Je m'appelle 王小明.")
    assert translate("My name is 王小明.", lambda _: "Je m'appelle.") == Restored("Je m'appelle.", ("unk",))
    assert translate("王小明", str) == Restored("王小明", ("unk",))


def test_unknown_punctuation_is_repaired_where_it_is_plain() -> None:
    core = "It was late — very late."
    assert kinds(core) == ["raw"]
    assert translate(core, lambda _: "Il était tard ⁇ très tard.") == Restored("Il était tard — très tard.")
    assert translate(core, lambda _: "Il était tard, très tard.") == Restored("Il était tard, très tard.")
    assert translate(core, lambda _: "⁇a, il était tard.") == Restored("a, il était tard.", ("unk",))


def test_rare_letters_inside_a_word_are_left_to_the_model() -> None:
    assert kinds("Ça va bien.") == ["raw"]
    assert translate("Ça va bien.", lambda _: "I am fine.") == Restored("I am fine.")


@pytest.mark.parametrize(
    ("core", "text"),
    [
        ("Add ½ cup of milk.", "Add (1) cup of milk."),
        ("Add 1½ cups of milk.", "Add (1) cups of milk."),
        ("Add 1⁄2 cup of milk.", "Add (1) cup of milk."),
        ("It is 10² or 10⁻³ for you.", "It is (1) or (2) for you."),
        ("We drink H₂O here.", "We drink (1) here."),
        ("It has 12 km² of land.", "It has 12 (1) of land."),
        ("Chapter Ⅳ of the book.", "Chapter (1) of the book."),
        ("① Open the door.", "(1) Open the door."),
        ("We saw that here¹.", "We saw that here(1)."),
        ("It costs 5€ today.", "It costs (1) today."),
        ("It has 1,000½ in it.", "It has (1) in it."),
        ("It is 20°C today.", "It is (1) today."),
        ("It is 20℃ today.", "It is (1) today."),
    ],
)
def test_numbers_keep_their_value(core: str, text: str) -> None:
    assert way(core, "masked").texts == (text,)
    assert kinds(core)[0] == "masked"
    assert translate(core, str).text == core


NUMERALS = st.characters(categories=["No", "Nl", "Nd", "Sc"])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["hello ", "a", "5", "10", " ", "."]) | NUMERALS, max_size=12).map("".join))
def test_no_number_changes_silently(core: str) -> None:
    restored = translate(core, round_trip)
    plain = unicodedata.normalize("NFKC", restored.text)
    same = [char for char in core if char.isnumeric()] == [char for char in restored.text if char.isnumeric()]
    decimals = [char for char in unicodedata.normalize("NFKC", core) if char.isdecimal()]
    assert same or "unk" in restored.warnings or decimals == [char for char in plain if char.isdecimal()]
    for char in "½²₂Ⅳ①":
        assert restored.text.count(char) == core.count(char)


SPANS = ["{name}", "%s", "${x}", "{{y}}", "<b>", "</b>", "https://a.b/c", "a@b.org", "&amp;", "王", "😀", "(1)", "—"]
CORES = st.lists(
    st.sampled_from([*SPANS, "hello", "world", "Save", "the", ".", ",", " ", " "]), min_size=1, max_size=25
)
MODELS = [round_trip, str, lambda _: "", lambda text: text[::-1], lambda _: "(1)", lambda text: text + text]


@settings(deadline=None)
@given(CORES.map("".join), st.sampled_from(MODELS))
def test_spans_survive_every_model(core: str, model) -> None:
    restored = translate(core, model)
    assert restored.is_complete
    for start, end in find_spans(core):
        assert core[start:end] in restored.text
    assert "⁇" not in restored.text


@given(st.text(), st.text())
def test_any_strings(core: str, output: str) -> None:
    assert translate(core, lambda _: output).is_complete


@pytest.mark.parametrize("core", ["{a}" * 5000, "<b>" * 5000, "😀a " * 5000, "(1){x}" * 3000])
def test_many_spans(core: str) -> None:
    assert translate(core, round_trip).is_complete
