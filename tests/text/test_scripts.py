from __future__ import annotations

import sys
import unicodedata

import pytest

from nllbd.languages import LANGUAGES, resolve
from nllbd.text.scripts import count_scripts, script_of, scripts_of

NAMES = {"LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARABIC": "Arab", "HEBREW": "Hebr", "ARMENIAN": "Armn"}
NAMES |= {"DEVANAGARI": "Deva", "BENGALI": "Beng", "GURMUKHI": "Guru", "GUJARATI": "Gujr", "ORIYA": "Orya"}
NAMES |= {"TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda", "MALAYALAM": "Mlym", "SINHALA": "Sinh", "THAI": "Thai"}
NAMES |= {"LAO": "Laoo", "TIBETAN": "Tibt", "MYANMAR": "Mymr", "GEORGIAN": "Geor", "HANGUL": "Hang", "KHMER": "Khmr"}
NAMES |= {"ETHIOPIC": "Ethi", "TIFINAGH": "Tfng", "HIRAGANA": "Kana", "KATAKANA": "Kana", "CJK": "Hani", "OL": "Olck"}


def test_letters_are_where_their_names_say() -> None:
    """Every letter of the basic plane whose Unicode name starts with a script's name, rare extensions apart."""
    right = wrong = 0
    for code in range(min(sys.maxunicode, 0xFFFF)):
        script = NAMES.get(unicodedata.name(chr(code), "").split(" ")[0])
        if script is None or not chr(code).isalpha():
            continue
        right += script_of(chr(code)) == script
        wrong += script_of(chr(code)) not in (script, None)
    assert wrong <= 20
    assert right > 40_000


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x.native_name], ids=lambda language: language.code)
def test_native_names_are_in_the_script(language) -> None:
    assert scripts_of(language) & set(count_scripts(language.native_name))


def test_counts_letters_only() -> None:
    assert count_scripts("Hi, 你好! 123 😀") == {"Latn": 2, "Hani": 2}
    assert scripts_of(resolve("ja")) == {"Hani", "Kana"}
    assert script_of("1") is None
