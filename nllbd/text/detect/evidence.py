"""What the two built-in detectors say of a text, weighed into one distribution over languages.

py3langid (BSD-3-Clause) knows 140 languages and gives each a probability; CLD2 (Apache-2.0) knows 160, names at most
three, and is the better one where the other errs. Neither is right often enough alone on a word or two, nor do their
own figures say how often. The weights below are those under which the shares of the weighed distribution do: they
minimize the log loss on texts that `python -m bench.detect` does not measure on (see there).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from nllbd.languages import BY_CODE
from nllbd.text.detect.han import chinese_of
from nllbd.text.detect.labels import FOREIGN, codes_of
from nllbd.text.scripts import scripts_of

Shares = Mapping[str, float]

_LEAST_SHARE = 1e-4  # what py3langid calls less likely is noise
_USUAL_BYTES = 30
_WEIGHT_NGRAMS, _PER_LENGTH_NGRAMS = 1.6, -0.2
_WEIGHT_WORDS, _PER_LENGTH_WORDS = 2.1, -0.5
_WEIGHT_ENGLISH = 0.7  # CLD2 says English when it does not know
_WEIGHT_ALONE = 1.1  # of what CLD2 says of a language that py3langid has not heard of
_SHARE_ALONE = -3.2  # its logarithm, before CLD2 speaks
_FOREIGN = -4.0  # few people send what no NLLB-200 model reads


class Evidence(Protocol):
    """A loaded detector. Safe in any thread."""

    codes: frozenset[str]

    def weigh(self, sample: str, script: str) -> dict[str, float]:
        """Code → share of the languages that `sample`, mostly written in `script`, may be in; the shares add up to 1.

        A language that NLLB-200 does not have has FOREIGN before its name. Empty: nothing is known.
        """
        ...


class BuiltIn:
    """py3langid and CLD2 together. Loading takes 0.6 s and 95 MB, of which numpy and py3langid take 87."""

    def __init__(self) -> None:
        import pycld2
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._cld2: Any = pycld2
        self._ngrams: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        named = {code for name, code in pycld2.LANGUAGES if name in pycld2.DETECTED_LANGUAGES}
        self._code = codes_of({*self._ngrams.labels, *named})
        known = {*self._code.values(), "zho_Hant"}
        self.codes = frozenset(code for code in known if not code.startswith(FOREIGN))

    def weigh(self, sample: str, script: str) -> dict[str, float]:
        encoded = sample.encode("utf-8", "ignore")
        ngrams = self._fold(self._ngrams.rank(sample), sample, script)
        words = self._fold(self._named(encoded), sample, script)
        return combine(ngrams, words, len(encoded))

    def _named(self, encoded: bytes) -> list[tuple[str, float]]:
        """CLD2's answer: label and share of the text."""
        try:
            _, _, found = self._cld2.detect(encoded, isPlainText=True, bestEffort=True)
        except self._cld2.error:  # a character that CLD2 does not take
            return []
        return [(label, percent / 100) for _, label, percent, _ in found if label != "un"]

    def _fold(self, ranking: list[tuple[str, float]], sample: str, script: str) -> dict[str, float]:
        shares: dict[str, float] = {}
        for label, share in ranking:
            code = self._code.get(label, FOREIGN + label)
            code = chinese_of(sample) if code in ("zho_Hans", "zho_Hant") else code
            code = in_script(code, script)
            if code:
                shares[code] = shares.get(code, 0.0) + share
        return shares


def in_script(code: str, script: str) -> str:
    """The code, if the language is written in `script`; Bosnian for Serbian in Latin letters; else an empty string."""
    if code == "srp_Cyrl" and script == "Latn":
        return "bos_Latn"
    return code if code.startswith(FOREIGN) or script in scripts_of(BY_CODE[code]) else ""


def combine(ngrams: Shares, words: Shares, num_bytes: int) -> dict[str, float]:
    """The distribution that both detectors' shares of the same text make together; empty when both are silent."""
    length = math.log(max(num_bytes, 1) / _USUAL_BYTES)
    weight_ngrams = max(0.1, _WEIGHT_NGRAMS + _PER_LENGTH_NGRAMS * length)
    weight_words = max(0.0, _WEIGHT_WORDS + _PER_LENGTH_WORDS * length)
    scores = {}
    for code in ngrams.keys() | words.keys():
        known = ngrams.get(code)
        score = _SHARE_ALONE if known is None else weight_ngrams * math.log(max(known, _LEAST_SHARE))
        trust = _WEIGHT_ENGLISH if code == "eng_Latn" else _WEIGHT_ALONE if known is None else 1.0
        scores[code] = score + trust * weight_words * words.get(code, 0.0) + _FOREIGN * code.startswith(FOREIGN)
    return _softmax(scores)


def _softmax(scores: Mapping[str, float]) -> dict[str, float]:
    if not scores:
        return {}
    highest = max(scores.values())
    powers = {code: math.exp(score - highest) for code, score in scores.items()}
    total = sum(powers.values())
    return {code: power / total for code, power in powers.items()}
