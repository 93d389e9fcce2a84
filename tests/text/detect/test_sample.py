"""Accuracy on texts of Django's catalogues, those that the weights were not fitted on: `python -m bench.detect
--write-sample` picked them. The floors are a little below what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import pytest

from bench.detect import KINDS, Detect, Score, read_sample, score
from nllbd.languages import Languages
from nllbd.text.detect import Detector

SAMPLE = read_sample(Path(__file__).parent / "sample.json")
#: Told right only where their neighbours' n-grams differ: they share nearly all words.
TWINS = {"bos_Latn", "hrv_Latn", "nno_Latn", "nob_Latn", "ind_Latn"}


def detect_at(threshold: float) -> Detect:
    detector = Detector(Languages(), threshold)

    def detect(text: str) -> tuple[str | None, float | None]:
        found = detector.detect(text)
        return (found.language.code if found.language else None), found.confidence

    return detect


@pytest.fixture(scope="module")
def guesses() -> dict[str, Score]:
    return {kind: score(detect_at(0.0), SAMPLE, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def answers() -> dict[str, Score]:
    return {kind: score(detect_at(0.5), SAMPLE, kind) for kind in KINDS}


def test_languages() -> None:
    assert len(SAMPLE) >= 60
    assert all(len(texts.short) >= 5 for texts in SAMPLE.values())


def test_long_texts(answers: dict[str, Score]) -> None:
    found = answers["long"]
    sys.stdout.write(f"\nlong: {found.right:.3f} right, {found.right_of_answered:.3f} of the answered\n")
    assert found.right >= 0.95
    assert found.right_of_answered >= 0.96
    weak = {code: share for code, share in found.languages.items() if share < 0.7}
    assert weak.keys() <= TWINS, weak


def test_short_texts(answers: dict[str, Score], guesses: dict[str, Score]) -> None:
    sys.stdout.write(
        f"\nshort: {guesses['short'].right:.3f} right when it has to guess; "
        f"{answers['short'].right_of_answered:.3f} of the {answers['short'].answered:.3f} that it answers\n"
    )
    assert guesses["short"].right >= 0.75
    assert answers["short"].right_of_answered >= guesses["short"].right + 0.04
    assert answers["short"].answered >= 0.75


def test_confidence_is_the_share_told_right(guesses: dict[str, Score]) -> None:
    """On average, and never far above it where there are texts enough to say."""
    for kind in KINDS:
        bins = guesses[kind].calibration
        texts = sum(count for count, _, _ in bins)
        error = sum(count * abs(confidence - right) for count, confidence, right in bins) / texts
        sys.stdout.write(f"\n{kind}: {error:.3f} mean difference of confidence and share right\n")
        assert error <= 0.08
        assert all(right >= confidence - 0.2 for count, confidence, right in bins if count >= 40)


def test_a_model_s_languages_are_told_better_than_all(guesses: dict[str, Score]) -> None:
    """What the loaded model does not know can not be answered."""
    codes = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "rus_Cyrl", "arb_Arab")
    few = {code: SAMPLE[code] for code in codes}
    detector = Detector(Languages(codes), 0.0)

    def detect(text: str) -> tuple[str | None, float | None]:
        found = detector.detect(text)
        return (found.language.code if found.language else None), found.confidence

    restricted = score(detect, few, "short")
    assert restricted.right >= fmean(guesses["short"].languages[code] for code in codes) + 0.03
