"""The one place that knows language codes: FLORES-200 ↔ BCP-47 ↔ ISO 639 ↔ names, script and direction.

`MODEL_CODES` is the order of the language ids in every NLLB-200 vocabulary. `resolve` reads any form a caller may
write; `Languages` is the set that one model was trained on. Nothing here knows models, HTTP or text.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nllbd.errors import UnknownLanguage, UnsupportedPair
from nllbd.language_table import NAMES, NOT_IN_MODEL, ROWS, SUBTAGS, TAGS

Direction = Literal["ltr", "rtl"]

# Scripts that put no space between words. Sentences are then joined without one as well.
_UNSPACED_SCRIPTS = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})
_RTL_SCRIPTS = frozenset({"Arab", "Hebr"})
_MAX_NAME_LENGTH = 80
_FLORES = re.compile(r"[a-z]{3}_[a-z]{4}")
_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?:-(?P<extlang>[a-z]{3}))?(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|\d[a-z0-9]{3}))*(?:-[a-z0-9](?:-[a-z0-9]{2,8})+)*"
)


@dataclass(frozen=True, slots=True)
class Language:
    """One language of the model.

    Attributes:
        code: FLORES-200 code, e.g. `zho_Hans`; the model's own name for it.
        bcp47: canonical BCP-47 tag, e.g. `zh-Hans`; unique among the 202.
        name: English name. native_name: its own name, or None where the table has none.
        iso639_1: two letters, or None. iso639_3: three letters.
        script: ISO 15924, four letters (`Hans`, `Hant` and `Jpan` included).
        spaces: whether the script puts spaces between words, and so between sentences.
        direction: `ltr` or `rtl`.
    """

    code: str
    bcp47: str
    name: str
    native_name: str | None
    iso639_1: str | None
    iso639_3: str
    script: str
    spaces: bool
    direction: Direction


def _language(code: str, bcp47: str, name: str, native_name: str) -> Language:
    primary, script = bcp47.split("-")[0], code[4:]
    return Language(
        code=code,
        bcp47=bcp47,
        name=name,
        native_name=native_name or None,
        iso639_1=primary if len(primary) == 2 else None,
        iso639_3=code[:3],
        script=script,
        spaces=script not in _UNSPACED_SCRIPTS,
        direction="rtl" if script in _RTL_SCRIPTS else "ltr",
    )


def _name_key(name: str) -> str:
    """Case, accents, punctuation and word order do not matter: `Simplified Chinese` is `Chinese (Simplified)`."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return " ".join(sorted(re.findall(r"\w+", plain)))


def _names() -> dict[str, str]:
    """Name key → code. English names win over native ones, and an earlier row over a later one."""
    names = {_name_key(name): code for code, _, name, _ in ROWS}
    for name, code in NAMES.items():
        names.setdefault(_name_key(name), code)
    for code, _, _, native in ROWS:
        names.setdefault(_name_key(native), code)
    names.pop("", None)
    return names


def _subtags() -> dict[str, str]:
    """Primary language subtag → code."""
    subtags = dict(SUBTAGS)
    for code, bcp47, _, _ in ROWS:
        subtags.setdefault(code[:3], code)
        subtags.setdefault(bcp47.split("-")[0], code)
    return subtags


LANGUAGES: tuple[Language, ...] = tuple(_language(*row) for row in ROWS)
MODEL_CODES: tuple[str, ...] = tuple(language.code for language in LANGUAGES)
BY_CODE: Mapping[str, Language] = MappingProxyType({language.code: language for language in LANGUAGES})
_CODE_BY_FOLDED: Mapping[str, str] = MappingProxyType({code.lower(): code for code in (*MODEL_CODES, *NOT_IN_MODEL)})
_CODE_BY_SUBTAG: Mapping[str, str] = MappingProxyType(_subtags())
_CODE_BY_NAME: Mapping[str, str] = MappingProxyType(_names())


def resolve(name: str, field: str | None = None) -> Language:
    """The language that `name` means: FLORES code, BCP-47 tag, ISO 639-1/3 code, English or native name.

    Case does not matter, nor whether a tag has hyphens or underscores. A tag's region, variants and extensions are
    accepted and ignored, except where they pick another language (`zh-TW`, `fa-AF`); its script is never ignored.
    Raises UnknownLanguage that names the nearest known form.
    """
    key = name.strip()
    if not key or len(key) > _MAX_NAME_LENGTH:
        raise _unknown(name, field)
    folded = key.lower()
    code = _CODE_BY_FOLDED.get(folded.replace("-", "_")) or _code_of_tag(folded) or _CODE_BY_NAME.get(_name_key(key))
    if code is None:
        raise _unknown(name, field)
    if code in NOT_IN_MODEL:
        raise UnknownLanguage(
            f"{code} ({NOT_IN_MODEL[code]}) is in FLORES-200 but not in the NLLB-200 models; "
            f"use {_same_language(code)} instead",
            field=field,
        )
    return BY_CODE[code]


def _code_of_tag(folded: str) -> str | None:
    """Code of a BCP-47 tag, a POSIX locale (`en_us.utf-8`) or a FLORES code of another release (`cmn_hans`)."""
    tag = re.split(r"[.@]", folded, maxsplit=1)[0].replace("_", "-")
    parts = _TAG.fullmatch(tag)
    if parts is None:
        return None
    primary = parts["extlang"] or parts["language"]
    special = TAGS.get(f"{primary}-{parts['script'] or parts['region']}")
    if special or tag in TAGS:
        return special or TAGS[tag]
    code = _CODE_BY_SUBTAG.get(primary)
    if code is None or parts["script"] in (None, code[4:].lower()):
        return code
    return _CODE_BY_FOLDED.get(f"{code[:3]}_{parts['script']}")


def _same_language(code: str) -> str:
    return " or ".join(known for known in MODEL_CODES if known[:3] == code[:3])


def _unknown(name: str, field: str | None) -> UnknownLanguage:
    shown = name if len(name) <= _MAX_NAME_LENGTH else name[:_MAX_NAME_LENGTH] + "…"
    nearest = _nearest(name.strip())
    hint = f"; did you mean {nearest.code} ({nearest.name})?" if nearest else ""
    return UnknownLanguage(
        f"unknown language {shown!r}{hint or ';'} give a FLORES-200 code (fra_Latn), a BCP-47 tag (fr) "
        "or an English name (French)",
        field=field,
    )


def _nearest(name: str) -> Language | None:
    """The language whose code, or else whose name, looks most like `name`; None when nothing does."""
    if not name or len(name) > _MAX_NAME_LENGTH:
        return None
    folded = name.lower().replace("-", "_")
    if _FLORES.fullmatch(folded):
        close = difflib.get_close_matches(folded, _CODE_BY_FOLDED, n=1, cutoff=0.6)
        same = [code for code in MODEL_CODES if code.lower()[:3] == folded[:3]]
        code = same[0] if same else _CODE_BY_FOLDED[close[0]] if close else None
        return BY_CODE.get(code) if code else None
    tag = _CODE_BY_SUBTAG.get(folded.split("_")[0])
    if tag:
        return BY_CODE[tag]
    close = difflib.get_close_matches(_name_key(name), _CODE_BY_NAME, n=1, cutoff=0.7)
    return BY_CODE[_CODE_BY_NAME[close[0]]] if close else None


class Languages:
    """The languages one model serves, in the order of the model's ids.

    `codes` are FLORES codes (None: all 202). Raises UnknownLanguage for a code that is not the model family's.
    """

    def __init__(self, codes: Iterable[str] | None = None) -> None:
        wanted = set(MODEL_CODES if codes is None else codes)
        strange = sorted(wanted - set(MODEL_CODES))
        if strange:
            raise UnknownLanguage(f"not language codes of NLLB-200: {', '.join(strange)}")
        self._languages = tuple(language for language in LANGUAGES if language.code in wanted)
        self._codes = frozenset(wanted)

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(language.code for language in self._languages)

    def __iter__(self) -> Iterator[Language]:
        return iter(self._languages)

    def __len__(self) -> int:
        return len(self._languages)

    def __contains__(self, language: Language | str) -> bool:
        return (language if isinstance(language, str) else language.code) in self._codes

    def resolve(self, name: str, field: str | None = None) -> Language:
        """As `resolve`, and refuses what this model was not trained on.

        Raises UnknownLanguage (no such language) or UnsupportedPair (a language, but not one of this model's; the
        message says which it has).
        """
        language = resolve(name, field)
        if language.code in self._codes:
            return language
        raise UnsupportedPair(
            f"this model was not trained on {language.name} ({language.code}); it has {self._described()}", field=field
        )

    def _described(self) -> str:
        if len(self._languages) > 12:
            return f"{len(self._languages)} languages, listed at /languages"
        return ", ".join(f"{language.name} ({language.code})" for language in self._languages)
