"""Sentences and texts: held out, of the right languages, never twice, even in length."""

from collections import Counter

import pytest

from bench import corpus

PAIRS = [("eng_Latn", "fra_Latn"), ("deu_Latn", "eng_Latn")]


def test_sentences_go_their_direction_with_a_human_reference() -> None:
    rows = {row[0]: row for row in corpus.rows()}
    made = corpus.sentences(20, PAIRS, seed=3)
    assert [(it.source, it.target) for it in made] == PAIRS * 10
    english = [it for it in made if it.source == "eng_Latn"]
    assert all(rows[it.text][1] == it.reference for it in english)
    assert made == corpus.sentences(20, PAIRS, seed=3) != corpus.sentences(20, PAIRS, seed=4)


def test_a_sample_is_even_in_length() -> None:
    made = corpus.sentences(400, PAIRS[:1], seed=0)
    sample = [len(made[place].text) for place in corpus.evenly(made, 40)]
    everything = [len(it.text) for it in made]
    assert sample == sorted(sample)
    assert sum(sample) / 40 == pytest.approx(sum(everything) / 400, rel=0.05)
    assert len(set(corpus.evenly(made, 1000))) == 400


def test_texts_come_in_the_mix_and_share_no_sentence() -> None:
    made = corpus.texts(80, PAIRS, seed=0)
    assert Counter(it.kind for it in made) == {"sentence": 56, "paragraph": 20, "document": 4}
    assert all(len(it.text) <= corpus.MAX_CHARACTERS for it in made)
    assert len({it.text for it in made}) == 80
    documents = [it.text.count(". ") for it in made if it.kind == "document"]
    assert min(documents) >= 10


def test_few_texts_are_of_every_kind() -> None:
    assert {it.kind for it in corpus.texts(3, PAIRS, seed=0)} == set(corpus.KINDS)


@pytest.mark.parametrize("text", ["eng_Latn", "eng_Latn-eng_Latn", "eng_Latn-ita_Latn", ""])
def test_a_direction_that_the_model_lacks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no direction"):
        corpus.directions(text)


def test_directions_are_read() -> None:
    assert corpus.directions("eng_Latn-fra_Latn, deu_Latn-eng_Latn") == PAIRS
