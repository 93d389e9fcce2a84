"""Language codes: each dialect reads its own names for all 202 languages, and what it says it understands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nllbd.config import Settings
from nllbd.errors import UnknownLanguage
from nllbd.http.dialects import azure, deepl, google, libretranslate, native
from nllbd.job import TranslationJob
from nllbd.languages import LANGUAGES, Languages

ALL = Languages()
SETTINGS = Settings()
WHO = {"client": "c", "request_id": "r"}
Parse = Callable[[str], TranslationJob]


def by_libretranslate(code: str) -> TranslationJob:
    values = {"q": "a", "source": "auto", "target": code}
    return libretranslate.parse(values, ALL, SETTINGS, most_alternatives=3, **WHO)


def by_deepl(code: str) -> TranslationJob:
    return deepl.parse({"text": ["a"], "target_lang": code}, ALL, SETTINGS, **WHO)


def by_google(code: str) -> TranslationJob:
    return google.parse({"q": ["a"], "target": code}, ALL, SETTINGS, **WHO)


def by_azure(code: str) -> TranslationJob:
    return azure.parse({"api-version": ["3.0"], "to": [code]}, [{"Text": "a"}], ALL, SETTINGS, **WHO).jobs[0]


@pytest.mark.parametrize(
    ("parse", "codes"),
    [
        (by_libretranslate, {"zt": "zho_Hant", "zh": "zho_Hans", "zh-Hant": "zho_Hant"}),
        (by_libretranslate, {"pb": "por_Latn", "nb": "nob_Latn"}),
        (by_deepl, {"EN-US": "eng_Latn", "PT-BR": "por_Latn", "ZH-HANS": "zho_Hans"}),
        (by_deepl, {"ZH-HANT": "zho_Hant", "ZH": "zho_Hans"}),
        (by_deepl, {"NB": "nob_Latn", "ES-419": "spa_Latn", "EN": "eng_Latn", "pt-pt": "por_Latn"}),
        (by_google, {"zh-CN": "zho_Hans", "zh-TW": "zho_Hant", "iw": "heb_Hebr", "he": "heb_Hebr", "no": "nob_Latn"}),
        (by_google, {"jw": "jav_Latn", "fil": "tgl_Latn", "zh": "zho_Hans", "ckb": "ckb_Arab", "ku": "kmr_Latn"}),
        (by_azure, {"zh-Hans": "zho_Hans", "sr-Cyrl": "srp_Cyrl", "fil": "tgl_Latn"}),
        (by_azure, {"ku": "ckb_Arab", "kmr": "kmr_Latn"}),
        (by_azure, {"nb": "nob_Latn", "mn-Cyrl": "khk_Cyrl", "pt-PT": "por_Latn"}),
        (by_azure, {"fr-ca": "fra_Latn", "prs": "prs_Arab"}),
    ],
)
def test_names_of_its_own(parse: Parse, codes: dict[str, str]) -> None:
    assert {code: parse(code).target_lang for code in codes} == codes


@pytest.mark.parametrize(
    ("parse", "code_of"),
    [
        (by_libretranslate, lambda language: language.bcp47),
        (by_google, google.code_of),
        (by_azure, azure.code_of),
        (by_libretranslate, lambda language: language.code),
        (by_deepl, lambda language: language.bcp47.upper()),
    ],
)
def test_what_it_says_it_understands(parse: Parse, code_of: Callable[..., str]) -> None:
    for language in LANGUAGES:
        assert parse(code_of(language)).target_lang == language.code
    assert len({code_of(language) for language in LANGUAGES}) == len(LANGUAGES)


def test_deepl_s_lists() -> None:
    """Chinese is one source and three targets; English and Portuguese are two targets each."""
    sources = [item.language for item in deepl.render_languages(ALL, "source")]
    targets = [item.language for item in deepl.render_languages(ALL, "target")]
    assert len(set(sources)) == len(sources) == len(LANGUAGES) - 1
    assert len(set(targets)) == len(targets) == len(LANGUAGES) + 3
    assert {"ZH", "EN", "PT"} <= set(sources)
    assert {"ZH", "ZH-HANS", "ZH-HANT", "EN-GB", "EN-US", "PT-BR", "PT-PT"} <= set(targets)
    for code in {*sources, *targets}:
        assert by_deepl(code).target_lang in ALL


def test_a_script_that_the_model_lacks_is_not_replaced() -> None:
    """Serbian in Latin script would come out in Cyrillic."""
    with pytest.raises(UnknownLanguage, match="srp_Cyrl"):
        by_azure("sr-Latn")


def test_the_languages_of_everybody() -> None:
    assert [item.flores for item in native.render_languages(ALL)] == [language.code for language in LANGUAGES]
