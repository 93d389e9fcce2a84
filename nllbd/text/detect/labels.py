"""What detectors call a language, as FLORES-200 codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from nllbd.errors import UnknownLanguage
from nllbd.languages import resolve

#: A language that NLLB-200 does not have: this mark and the detector's own label.
FOREIGN = "?"
#: Labels that `languages.resolve` reads otherwise, or not at all, than the detectors mean them.
_MEANT: Mapping[str, str] = MappingProxyType(
    {
        "bh": "bho_Deva",  # "Bihari", made from Bhojpuri text
        "gug": "grn_Latn",
        "iw": "heb_Hebr",
        "jw": "jav_Latn",
        "ku": "kmr_Latn",
        "no": "nob_Latn",
        "sdh": "ckb_Arab",  # Southern Kurdish, the nearest there is
        "uzs": "uzn_Latn",
        "wuu": "zho_Hans",
        "zh": "zho_Hans",
        "zh-Hant": "zho_Hant",
        "zho_Hani": "zho_Hans",
        "cmn_Hani": "zho_Hans",
        "arb_Latn": "?arb_Latn",  # in FLORES, not in the models
        "min_Arab": "?min_Arab",
    }
)


def codes_of(labels: Iterable[str]) -> dict[str, str]:
    """Label → FLORES code, or FOREIGN and the label."""
    return {label: _code_of(label) for label in labels}


def _code_of(label: str) -> str:
    if label in _MEANT:
        return _MEANT[label]
    try:
        return resolve(label).code
    except UnknownLanguage:
        return FOREIGN + label
