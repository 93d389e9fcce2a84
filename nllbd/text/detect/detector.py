"""The detector: takes out what is no language, asks for evidence, restricts it to the model's languages, decides."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nllbd.languages import BY_CODE, LANGUAGES, Language, Languages
from nllbd.text.detect.evidence import BuiltIn, Evidence
from nllbd.text.detect.fasttext import FastText, check_model_file
from nllbd.text.detect.labels import FOREIGN
from nllbd.text.scripts import count_scripts, scripts_of
from nllbd.text.spans import find_spans, is_language

#: A language is told by so much of a text.
MAX_CHARACTERS = 2_000
_MIN_LETTERS = 2
_MAX_CANDIDATES = 5
_NEGLIGIBLE = 0.001
_PLAINLY_FOREIGN = 0.99
_MIN_FOREIGN_LETTERS = 12
#: How likely a text is in a language that the model does not have, against one that it has: a caller who asks for a
#: translation knows what the model is for.
_NOT_ALLOWED = 0.4


@dataclass(frozen=True, slots=True)
class Detection:
    """`language` is None when unknown; `confidence` (0 to 1) is that of the best candidate; candidates best first.

    Of texts that are detected with confidence c about the share c is detected rightly. `foreign`: of an unknown text,
    the language that is not allowed and in which it plainly is.
    """

    language: Language | None
    confidence: float
    candidates: tuple[tuple[Language, float], ...] = ()
    foreign: Language | None = None


class Detector:
    """Detects among `allowed`; below `threshold` (0 to 1) the answer is *unknown*. Safe in any thread.

    `model_file` is a fastText model to ask in place of the built-in detectors; raises ConfigError when it cannot be
    one. What is asked is loaded by the first call that needs it.
    """

    def __init__(self, allowed: Languages, threshold: float = 0.5, model_file: Path | None = None) -> None:
        self._allowed = allowed
        self._threshold = threshold
        self._model_file = model_file
        self._lock = threading.Lock()
        self._evidence: Evidence | None = None
        if model_file is not None:
            check_model_file(model_file)

    def detect(self, text: str) -> Detection:
        """The language of `text`. Text without language in it (see `spans.is_language`) is unknown.

        Raises ConfigError when the model file turns out to be none.
        """
        sample = _plain(text[:MAX_CHARACTERS])
        scripts = count_scripts(sample)
        if scripts.total() < _MIN_LETTERS or not is_language(sample):
            return Detection(None, 0.0)
        script = scripts.most_common(1)[0][0]
        alone = _ALONE_IN_SCRIPT.get(script)
        shares = {alone: 1.0} if alone else self._loaded().weigh(sample, script)
        candidates = self._candidates(shares)
        best, confidence = candidates[0] if candidates else (None, 0.0)
        if best and confidence >= self._threshold:
            return Detection(best, confidence, candidates)
        return Detection(None, confidence, candidates, self._foreign(shares, scripts))

    def detectable(self) -> frozenset[str]:
        """FLORES codes of the allowed languages that can be detected. Loads what detects them."""
        known = self._loaded().codes | set(_ALONE_IN_SCRIPT.values())
        return frozenset(code for code in self._allowed.codes if code in known)

    def _candidates(self, shares: Mapping[str, float]) -> tuple[tuple[Language, float], ...]:
        """The allowed languages with their shares; what is not allowed counts, if less, against them."""
        allowed = {code: share for code, share in shares.items() if code in self._allowed}
        others = sum(shares.values()) - sum(allowed.values())
        total = sum(allowed.values()) + _NOT_ALLOWED * max(0.0, others)
        if total <= 0:
            return ()
        best = sorted(allowed.items(), key=lambda item: (-item[1], item[0]))[:_MAX_CANDIDATES]
        return tuple((BY_CODE[code], min(1.0, share / total)) for code, share in best if share / total > _NEGLIGIBLE)

    def _foreign(self, shares: Mapping[str, float], scripts: Counter[str]) -> Language | None:
        """The likeliest language where it is not allowed and there is little doubt: the less, the less the script says
        already. Short names in the script of an allowed language look like anything.
        """
        if not shares:
            return None
        code, share = max(shares.items(), key=lambda item: item[1])
        if code.startswith(FOREIGN) or code in self._allowed:
            return None
        script = scripts.most_common(1)[0][0]
        if any(script in scripts_of(own) for own in self._allowed):
            is_plain = share >= _PLAINLY_FOREIGN and scripts.total() >= _MIN_FOREIGN_LETTERS
            return BY_CODE[code] if is_plain else None
        return BY_CODE[code] if share >= self._threshold else None

    def _loaded(self) -> Evidence:
        with self._lock:
            if self._evidence is None:
                self._evidence = BuiltIn() if self._model_file is None else FastText(self._model_file)
            return self._evidence


def _scripts_alone() -> dict[str, str]:
    """Script → the only language that is written in it."""
    codes: dict[str, list[str]] = {}
    for language in LANGUAGES:
        for script in scripts_of(language):
            codes.setdefault(script, []).append(language.code)
    alone = {script: found[0] for script, found in codes.items() if len(found) == 1}
    return alone | {"Olck": "sat_Beng"}  # the model's name for Santali says otherwise


_ALONE_IN_SCRIPT: Mapping[str, str] = _scripts_alone()


def _plain(text: str) -> str:
    """Without placeholders, markup and URLs, and without characters that are not to be seen."""
    parts, end = [], 0
    for start, stop in find_spans(text):
        parts.append(text[end:start])
        end = stop
    joined = " ".join((*parts, text[end:]))
    return "".join(char if char.isprintable() or char in "\u200c\u200d" else " " for char in joined)
