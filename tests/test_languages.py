from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.errors import UnknownLanguage, UnsupportedPair
from nllbd.languages import BY_CODE, LANGUAGES, MODEL_CODES, Languages, resolve

FORMS = {
    "zho_Hans": [
        "zho_Hans",
        "ZHO_hans",
        "zho-hans",
        "zh",
        "zh-Hans",
        "zh-CN",
        "zh_CN",
        "zh-SG",
        "zho",
        "chi",
        "cmn_Hans",
    ],
    "zho_Hant": ["zh-Hant", "zh-TW", "zh_tw", "zh-HK", "zh-Hant-TW", "cmn-Hant", "Traditional Chinese", "繁體中文"],
    "yue_Hant": ["yue", "zh-yue", "yue-HK", "Cantonese"],
    "por_Latn": ["pt", "pt-BR", "pt_PT", "por", "Portuguese", "português", "Brazilian Portuguese"],
    "eng_Latn": ["en", "EN", "eng", "en_US", "en-GB", "en_US.UTF-8", "en-Latn", "English", "english", " english "],
    "fra_Latn": ["fr", "fre", "fra", "fr-CA", "French", "FRENCH", "Français", "francais"],
    "deu_Latn": ["de", "ger", "deu", "de-CH-1996", "de_DE@euro", "de-DE-u-co-phonebk", "German", "Deutsch"],
    "spa_Latn": ["es", "spa", "es-419", "es-MX", "Spanish", "Español", "Castilian"],
    "arb_Arab": ["ar", "ara", "arb", "ar-EG", "Arabic", "Modern Standard Arabic", "العربية"],
    "nob_Latn": ["no", "nb", "nor", "nob", "no-NO", "Norwegian", "Norwegian Bokmål", "Bokmal"],
    "nno_Latn": ["nn", "nno", "Nynorsk", "Norwegian Nynorsk"],
    "swh_Latn": ["sw", "swa", "swh", "Swahili"],
    "pes_Arab": ["fa", "fas", "per", "pes", "fa-IR", "Persian", "Farsi"],
    "prs_Arab": ["prs", "fa-AF", "Dari"],
    "zsm_Latn": ["ms", "msa", "may", "Malay"],
    "uzn_Latn": ["uz", "uzb", "Uzbek"],
    "azj_Latn": ["az", "aze", "az-Latn", "Azerbaijani"],
    "azb_Arab": ["azb", "az-Arab", "az-IR"],
    "kmr_Latn": ["ku", "kur", "kmr", "Kurdish"],
    "ckb_Arab": ["ckb", "ku-Arab", "ku-IQ", "Sorani"],
    "als_Latn": ["sq", "alb", "sqi", "Albanian"],
    "est_Latn": ["et", "est", "ekk", "Estonian"],
    "lvs_Latn": ["lv", "lav", "Latvian"],
    "khk_Cyrl": ["mn", "mon", "Mongolian"],
    "npi_Deva": ["ne", "nep", "Nepali"],
    "ydd_Hebr": ["yi", "yid", "ji", "Yiddish"],
    "pbt_Arab": ["ps", "pus", "Pashto"],
    "heb_Hebr": ["he", "iw", "Hebrew"],
    "tgl_Latn": ["tl", "fil", "fil-PH", "Tagalog", "Filipino"],
    "kas_Deva": ["ks-Deva"],
    "sat_Beng": ["sat", "sat_Olck", "Santali"],
    "kor_Hang": ["ko", "ko-Kore", "ko-KR", "한국어"],
    "jpn_Jpan": ["ja", "ja-JP", "Japanese", "日本語"],
}


def test_codes_are_those_of_the_model_in_its_order() -> None:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert tuple(FAIRSEQ_LANGUAGE_CODES) == MODEL_CODES


@pytest.mark.parametrize(("code", "form"), [(code, form) for code, forms in FORMS.items() for form in forms])
def test_every_form_resolves(code: str, form: str) -> None:
    assert resolve(form).code == code


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.code)
def test_own_forms_resolve_to_the_language(language) -> None:
    assert resolve(language.code) is language
    assert resolve(language.bcp47) is language
    assert resolve(language.bcp47.upper().replace("-", "_")) is language
    assert resolve(language.name) is language
    if language.native_name:
        assert resolve(language.native_name).iso639_3[:1]  # shared by a few (Sesotho), but always some language
    assert resolve(language.iso639_3).iso639_3 == language.iso639_3
    if language.iso639_1:
        assert resolve(language.iso639_1).iso639_1 == language.iso639_1


def test_facts_of_scripts() -> None:
    assert {language.script for language in LANGUAGES if not language.spaces} == {
        *("Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
    }
    assert BY_CODE["arb_Arab"].direction == BY_CODE["heb_Hebr"].direction == "rtl"
    assert BY_CODE["kor_Hang"].spaces
    assert BY_CODE["eng_Latn"].direction == "ltr"


@pytest.mark.parametrize("form", ["arb_Latn", "min_Arab", "ar-Latn", "min-Arab", "ARB_LATN"])
def test_flores_codes_outside_the_model_are_refused_with_the_reason(form: str) -> None:
    with pytest.raises(UnknownLanguage, match=r"in FLORES-200 but not in the NLLB-200 models; use (arb_Arab|min_Latn)"):
        resolve(form)


@pytest.mark.parametrize(
    ("form", "suggestion"),
    [
        *[("Frnch", "fra_Latn"), ("fra_Latm", "fra_Latn"), ("sr-Latn", "srp_Cyrl"), ("eng_Cyrl", "eng_Latn")],
        *[("Portugese", "por_Latn"), ("uz-Cyrl", "uzn_Latn"), ("germn", "deu_Latn")],
    ],
)
def test_errors_suggest_the_nearest(form: str, suggestion: str) -> None:
    with pytest.raises(UnknownLanguage, match=f"did you mean {suggestion}") as caught:
        resolve(form, "target_lang")
    assert caught.value.field == "target_lang"


@pytest.mark.parametrize(
    "form", ["", "  ", "xx", "auto", "a" * 100_000, "\ud800", "zh-wuu-x", "en--US", "😀", "_", "-"]
)
def test_nonsense_is_refused(form: str) -> None:
    with pytest.raises(UnknownLanguage) as caught:
        resolve(form)
    assert len(caught.value.message) < 400
    caught.value.message.encode("utf-8")


@given(st.text(max_size=60))
def test_any_string_resolves_or_is_refused(name: str) -> None:
    with suppress(UnknownLanguage):
        assert resolve(name).code in MODEL_CODES


def test_subset_serves_in_model_order_and_refuses_the_rest() -> None:
    demo = Languages(read_checkpoint(DEMO_FOLDER).languages)
    assert demo.codes == ("deu_Latn", "eng_Latn", "fra_Latn", "spa_Latn")
    assert [language.code for language in demo] == list(demo.codes)
    assert len(demo) == 4
    assert "fra_Latn" in demo
    assert BY_CODE["jpn_Jpan"] not in demo
    for code in demo.codes:
        for form in FORMS[code]:
            assert demo.resolve(form).code == code
    with pytest.raises(
        UnsupportedPair, match=r"not trained on Japanese \(jpn_Jpan\); it has German.*Spanish"
    ) as caught:
        demo.resolve("ja", "target_lang")
    assert caught.value.field == "target_lang"
    with pytest.raises(UnknownLanguage):
        demo.resolve("xx")


def test_all_by_default_and_strange_codes_refused() -> None:
    assert Languages().codes == MODEL_CODES
    with pytest.raises(UnknownLanguage, match="xxx_Latn"):
        Languages(["eng_Latn", "xxx_Latn"])
