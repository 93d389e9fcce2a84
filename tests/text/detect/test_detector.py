from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.languages import MODEL_CODES, Languages
from nllbd.text.detect import Detector

DEMO_CODES = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn")
DEMO = Detector(Languages(DEMO_CODES), 0.5)
ALL = Detector(Languages(), 0.5)


def code_of(detector: Detector, text: str) -> str | None:
    found = detector.detect(text).language
    return found.code if found else None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hello, how are you today?", "eng_Latn"),
        ("Guten Tag, wie geht es Ihnen?", "deu_Latn"),
        ("Questo è un testo italiano.", "ita_Latn"),
        ("これは日本語です", "jpn_Jpan"),
        ("我们在这里学习中文", "zho_Hans"),
        ("我們在這裡學習中文", "zho_Hant"),
        ("Это предложение на русском языке.", "rus_Cyrl"),
        ("Αυτή είναι μια ελληνική πρόταση.", "ell_Grek"),
        ("ᱥᱟᱱᱛᱟᱲᱤ ᱯᱟᱹᱨᱥᱤ", "sat_Beng"),
        ("สวัสดี", "tha_Thai"),
        ("안녕", "kor_Hang"),
    ],
)
def test_sentences(text: str, code: str) -> None:
    assert code_of(ALL, text) == code
    assert code_of(DEMO, text) == (code if code in DEMO_CODES else None)
    foreign = DEMO.detect(text).foreign
    assert (foreign.code if foreign else None) == (None if code in DEMO_CODES else code)
    assert ALL.detect(text).foreign is None


@pytest.mark.parametrize(
    "text", ["", " ", "12345", "12:30", "😀", "?!", "a", "https://example.com/de/haus", "{name}", "\ud800"]
)
def test_what_is_not_language_is_unknown(text: str) -> None:
    found = ALL.detect(text)
    assert found.language is None
    assert found.confidence == 0.0
    assert found.candidates == ()


def test_short_words_are_unknown_rather_than_wrong() -> None:
    assert code_of(ALL, "OK") is None
    assert code_of(DEMO, "OK") is None
    for word in ("OK", "Amsterdam", "zxqj qwrt", "Kuala Lumpur"):
        assert DEMO.detect(word).foreign is None
    assert code_of(DEMO, "zxqj qwrt") is None


def test_held_out(held_out) -> None:
    """Right far more often than not, wrong hardly ever; a foreign language is hardly ever taken for one of ours."""
    right = wrong = unknown = taken = denied = 0
    for row in held_out[:500]:
        for code, text in row.items():
            found = code_of(DEMO, text)
            if code not in DEMO_CODES:
                taken += found is not None
            elif found is None:
                unknown += 1
                denied += DEMO.detect(text).foreign is not None
            else:
                right += found == code
                wrong += found != code
    sys.stdout.write(
        f"\nright {right}, wrong {wrong}, unknown {unknown} ({denied} of them called foreign); "
        f"of 1000 foreign texts taken for ours {taken}\n"
    )
    assert wrong <= 0.005 * right
    assert unknown <= 0.08 * right
    assert taken <= 10
    assert denied <= 0.001 * right


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters()))
def test_any_text(text: str) -> None:
    found = ALL.detect(text)
    assert 0.0 <= found.confidence <= 1.0
    assert [share for _, share in found.candidates] == sorted((share for _, share in found.candidates), reverse=True)
    assert (found.language is not None) == (found.confidence >= 0.5)


def test_threshold() -> None:
    assert code_of(Detector(Languages(DEMO_CODES), 1.1), "Hello, how are you today?") is None
    assert code_of(Detector(Languages(DEMO_CODES), 0.0), "Hello") is not None


def test_detectable() -> None:
    assert DEMO.detectable() == set(DEMO_CODES)
    assert {"zho_Hans", "zho_Hant", "nob_Latn", "arb_Arab", "kmr_Latn"} <= ALL.detectable() < set(MODEL_CODES)


def test_threads_load_once_and_agree() -> None:
    fresh = Detector(Languages(DEMO_CODES))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: code_of(fresh, "Wo ist der Bahnhof?"), range(32)))
    assert found == {"deu_Latn"}


def test_importing_does_not_load_the_models() -> None:
    code = "import sys, nllbd.text.detect; assert 'py3langid' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
