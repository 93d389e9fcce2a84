from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.languages import BY_CODE, MODEL_CODES
from nllbd.text.detect.evidence import BuiltIn, combine, in_script
from nllbd.text.detect.han import chinese_of, form
from nllbd.text.detect.labels import FOREIGN, codes_of
from nllbd.text.scripts import scripts_of

CODES = st.sampled_from(["eng_Latn", "fra_Latn", "rus_Cyrl", "?la", "?br", "ceb_Latn"])
SHARES = st.dictionaries(CODES, st.floats(0, 1))


@pytest.fixture(scope="module")
def built_in() -> BuiltIn:
    return BuiltIn()


@given(SHARES, SHARES, st.integers(0, 10_000))
def test_a_distribution_comes_out(ngrams: dict[str, float], words: dict[str, float], num_bytes: int) -> None:
    shares = combine(ngrams, words, num_bytes)
    assert shares.keys() == ngrams.keys() | words.keys()
    assert all(0 <= share <= 1 for share in shares.values())
    assert not shares or math.isclose(sum(shares.values()), 1)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 500))
def test_what_both_say_weighs_more(first: float, second: float, num_bytes: int) -> None:
    alone = combine({"fra_Latn": first, "ita_Latn": second}, {}, num_bytes)
    both = combine({"fra_Latn": first, "ita_Latn": second}, {"fra_Latn": 0.9}, num_bytes)
    assert both["fra_Latn"] >= alone["fra_Latn"]


@given(st.text(st.characters()), st.sampled_from(["Latn", "Cyrl", "Hani", "Arab", "Zzzz"]))
def test_any_text(built_in: BuiltIn, text: str, script: str) -> None:
    shares = built_in.weigh(text, script)
    assert all(code.startswith(FOREIGN) or script in scripts_of(BY_CODE[code]) for code in shares)
    assert not shares or math.isclose(sum(shares.values()), 1)


def test_codes(built_in: BuiltIn) -> None:
    assert built_in.codes <= set(MODEL_CODES)
    assert len(built_in.codes) >= 140


def test_labels() -> None:
    found = codes_of(["en", "iw", "bh", "zh-Hant", "sr", "als", "arb_Latn", "tlh", "eng_Latn", "cmn_Hani"])
    assert found["iw"] == "heb_Hebr"
    assert found["bh"] == "bho_Deva"
    assert found["zh-Hant"] == "zho_Hant"
    assert found["arb_Latn"].startswith(FOREIGN)
    assert found["tlh"] == "?tlh"
    assert found["eng_Latn"] == found["en"] == "eng_Latn"
    assert found["cmn_Hani"] == "zho_Hans"


def test_scripts() -> None:
    assert in_script("rus_Cyrl", "Cyrl") == "rus_Cyrl"
    assert in_script("rus_Cyrl", "Latn") == ""
    assert in_script("srp_Cyrl", "Latn") == "bos_Latn"  # there is no Serbian in Latin letters among the 202
    assert in_script("?la", "Grek") == "?la"


def test_chinese() -> None:
    assert (form("們"), form("们"), form("中"), form("a")) == (1, -1, 0, 0)
    assert chinese_of("檔案與資料夾") == "zho_Hant"
    assert chinese_of("文件与文件夹") == "zho_Hans"
    assert chinese_of("中文") == "zho_Hans"
