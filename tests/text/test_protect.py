from __future__ import annotations

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
