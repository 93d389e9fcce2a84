"""Which language is a text in? py3langid, asked only about the languages that the model serves; may answer *unknown*.

A basic version: sentence-long text in one language is told well, a single word often is not, and then it says so.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from nllbd.errors import UnknownLanguage
from nllbd.languages import BY_CODE, Language, Languages, resolve
from nllbd.text.scripts import count_scripts, scripts_of
from nllbd.text.spans import find_spans, is_language

_MAX_CHARACTERS = 2_000
_MIN_LETTERS = 2
_MAX_CANDIDATES = 5
_NEGLIGIBLE = 0.001
_PLAINLY_FOREIGN = 0.95
_MIN_FOREIGN_LETTERS = 12
# Frequent characters that only one of the two ways to write Chinese has.
_SIMPLIFIED = frozenset("们这个来对说会国学时过还没为样问话见开长门间现电车马东书让给从业发后里边难听认识钱买卖")
_TRADITIONAL = frozenset("們這個來對說會國學時過還沒為樣問話見開長門間現電車馬東書讓給從業發後裡邊難聽認識錢買賣")


@dataclass(frozen=True, slots=True)
class Detection:
    """`language` is None when unknown; `confidence` (0 to 1) is that of the best candidate; candidates best first.

    `foreign`: of an unknown text, the language that is not allowed and in which it plainly is.
    """

    language: Language | None
    confidence: float
    candidates: tuple[tuple[Language, float], ...] = ()
    foreign: Language | None = None


class Detector:
    """Detects among `allowed`; below `threshold` (0 to 1) the answer is *unknown*. Safe in any thread.

    The language models are loaded (0.7 s) by the first call that needs them.
    """

    def __init__(self, allowed: Languages, threshold: float = 0.5) -> None:
        self._allowed = allowed
        self._threshold = threshold
        self._lock = threading.Lock()
        self._identifier: Any = None
        self._code_by_label: dict[str, str] = {}

    def detect(self, text: str) -> Detection:
        """The language of `text`. Text without language in it (see `spans.is_language`) is unknown."""
        sample = _without_spans(text[:_MAX_CHARACTERS])
        scripts = count_scripts(sample)
        if scripts.total() < _MIN_LETTERS or not is_language(sample):
            return Detection(None, 0.0)
        script = scripts.most_common(1)[0][0]
        ranking = dict(self._loaded().rank(sample))
        candidates = self._candidates(ranking, sample, script)
        best, confidence = candidates[0] if candidates else (None, 0.0)
        if best and confidence >= self._threshold:
            return Detection(best, confidence, candidates)
        return Detection(None, confidence, candidates, self._foreign(ranking, sample, scripts))

    def detectable(self) -> frozenset[str]:
        """FLORES codes of the allowed languages that the detector knows. Loads the language models."""
        self._loaded()
        known = {*self._code_by_label.values(), "zho_Hant"}
        return frozenset(code for code in self._allowed.codes if code in known)

    def _foreign(self, ranking: dict[str, float], sample: str, scripts: Counter[str]) -> Language | None:
        """The likeliest language where it is not allowed and there is little doubt: the less, the less the script says
        already. Short names in the script of an allowed language look like anything.
        """
        label, share = next(iter(ranking.items()))
        script = scripts.most_common(1)[0][0]
        language = BY_CODE.get(self._code_of(label, sample))
        if language is None or language in self._allowed or script not in scripts_of(language):
            return None
        if any(script in scripts_of(own) for own in self._allowed):
            return language if share >= _PLAINLY_FOREIGN and scripts.total() >= _MIN_FOREIGN_LETTERS else None
        return language if share >= self._threshold else None

    def _candidates(self, ranking: dict[str, float], sample: str, script: str) -> tuple[tuple[Language, float], ...]:
        """Allowed languages that are written in `script`, with probabilities among themselves.

        But a text that looks most like a language that is not allowed must not be taken for one that is: the share of
        that language counts against them. The rest of the detector's 140 languages would only drown short texts.
        """
        likeliest, likeliest_share = next(iter(ranking.items()))
        shares: dict[str, float] = {}
        for label, share in ranking.items():
            code = self._code_of(label, sample)
            if code in self._allowed and script in scripts_of(BY_CODE[code]):
                shares[code] = shares.get(code, 0.0) + share
        total = sum(shares.values())
        if self._code_of(likeliest, sample) not in shares:
            total += likeliest_share
        if total <= 0:
            return ()
        best = sorted(shares.items(), key=lambda item: -item[1])[:_MAX_CANDIDATES]
        return tuple((BY_CODE[code], share / total) for code, share in best if share / total > _NEGLIGIBLE)

    def _loaded(self) -> Any:
        with self._lock:
            if self._identifier is None:
                from py3langid.langid import MODEL_FILE, LanguageIdentifier

                identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
                self._code_by_label = _codes(identifier.labels)
                self._identifier = identifier
            return self._identifier

    def _code_of(self, label: str, sample: str) -> str:
        code = self._code_by_label.get(label, "")
        return _chinese(sample) if code == "zho_Hans" else code


def _codes(labels: list[str]) -> dict[str, str]:
    """The detector's labels as FLORES codes; labels that are no language of NLLB-200 are left out."""
    codes = {}
    for label in labels:
        try:
            codes[label] = resolve(label).code
        except UnknownLanguage:
            continue
    return codes


def _chinese(sample: str) -> str:
    traditional = sum(char in _TRADITIONAL and char not in _SIMPLIFIED for char in sample)
    simplified = sum(char in _SIMPLIFIED and char not in _TRADITIONAL for char in sample)
    return "zho_Hant" if traditional > simplified else "zho_Hans"


def _without_spans(text: str) -> str:
    parts, end = [], 0
    for start, stop in find_spans(text):
        parts.append(text[end:start])
        end = stop
    return " ".join((*parts, text[end:]))
