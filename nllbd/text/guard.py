"""What can be said about a translation without knowing either language: does it look like one?

`check` turns an output into warnings, `retry_params` says which of them deserve a second attempt and with what
settings. Thresholds were set on the demonstration model's held-out pairs (false alarms among 30,000 human
translations: `pytest -s tests/text/test_guard.py -k false_alarms`). Knows no model and no engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from nllbd.languages import Language
from nllbd.sched.sequence import SearchParams
from nllbd.text.scripts import count_scripts, scripts_of
from nllbd.text.tokenizer import UNK_MARK

REPETITION = "repetition"
EMPTY = "empty"
LENGTH_RATIO = "length_ratio"
WRONG_SCRIPT = "wrong_script"
UNK = "unk"
#: Every warning that `check` can give: a bounded set, fit for a metrics label.
WARNINGS = (EMPTY, REPETITION, LENGTH_RATIO, WRONG_SCRIPT, UNK)

_WORD = re.compile(r"\w+")
# A unit of n words may stand this many times in a row before it counts as a loop; a letter four times, two to four
# letters three times, longer units twice.
_MAX_WORD_REPEATS = {1: 2, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1}
_LETTER_LOOP = re.compile(r"(\D)\1{4}|(\D{2,4})\2{3}|(\D{5,16})\3{2}")
# A Chinese or Korean character says as much as about three letters.
_LETTERS_PER_CHARACTER = {"Hani": 3.0, "Kana": 1.7, "Hang": 2.2, "Ethi": 1.5}
_MAX_LENGTH_RATIO = 2.5
_LENGTH_SLACK = 25.0
_MIN_WRONG_LETTERS = 4


def check(source: str, output: str, source_lang: Language, target_lang: Language) -> list[str]:
    """Warnings about `output` as the translation of `source`, in the order of `WARNINGS`; [] is the normal case.

    empty: no letter or digit came out. repetition: the output loops where the source does not. length_ratio: far
    longer or shorter than the source. wrong_script: most letters are of a script that the target does not use.
    unk: the vocabulary lacks a character (`<unk>`).
    """
    del source_lang
    if not any(map(str.isalnum, output)):
        return [EMPTY, UNK] if UNK_MARK in output else [EMPTY]
    found = []
    if _loops(output) and (not _loops(source) or (target_lang.spaces and _is_stutter(source, output))):
        found.append(REPETITION)
    if _is_length_odd(source, output):
        found.append(LENGTH_RATIO)
    if _is_wrong_script(source, output, target_lang):
        found.append(WRONG_SCRIPT)
    if UNK_MARK in output or "<unk>" in output:
        found.append(UNK)
    return found


@dataclass(frozen=True, slots=True)
class Retry:
    """How to search again: with at least this many beams, and the length penalty moved by so much."""

    num_beams: int
    length_penalty_shift: float = 0.0


#: The warnings worth one retry. Of 12 greedy loops of the demonstration model on held-out software sentences 8 beams
#: mended all and 4 beams 11; of 6 loops with 4 beams, 8 beams mended 3, and 4 with the penalty lowered as well.
RETRIES: Mapping[str, Retry] = MappingProxyType(
    {
        EMPTY: Retry(num_beams=8, length_penalty_shift=0.5),
        REPETITION: Retry(num_beams=8, length_penalty_shift=-0.5),
        WRONG_SCRIPT: Retry(num_beams=8),
    }
)


def retry_params(warnings: Iterable[str], params: SearchParams, max_num_beams: int) -> SearchParams | None:
    """Settings for a second attempt, or None when the warnings ask for none (or it would be the same search)."""
    given = set(warnings)
    if not given:
        return None
    advice = next((RETRIES[warning] for warning in WARNINGS if warning in given and warning in RETRIES), None)
    if advice is None:
        return None
    num_beams = max(params.num_beams, min(max_num_beams, advice.num_beams))
    retry = replace(params, num_beams=num_beams, length_penalty=params.length_penalty + advice.length_penalty_shift)
    return retry if retry != params else None


def _loops(text: str) -> bool:
    """Whether a group of words, or of letters, is repeated in a row more often than language does."""
    words = _WORD.findall(text.casefold())
    letters = "".join(words)
    if _may_loop(letters) and _LETTER_LOOP.search(letters):
        return True
    if len(set(words)) == len(words):
        return False
    return any(_max_repeats(words, n) > limit for n, limit in _MAX_WORD_REPEATS.items())


def _may_loop(letters: str) -> bool:
    """Whether four letters in a row occur twice, as in every loop: far quicker to see than the loop itself."""
    runs = [letters[i : i + 4] for i in range(len(letters) - 3)]
    return len(set(runs)) < len(runs)


def _is_stutter(source: str, output: str) -> bool:
    """Whether a word of the source that is one long loop came out as a loop of far fewer letters: `HHHH` of `Hello`."""
    wanted, got = _letter_loops(source), _letter_loops(output)
    return bool(wanted and got) and 2 * min(got) < min(wanted)


def _letter_loops(text: str) -> list[int]:
    """How many letters each loop within a word repeats."""
    return [len(match[match.lastindex or 0]) for match in _LETTER_LOOP.finditer(text.casefold())]


def _max_repeats(words: Sequence[str], n: int) -> int:
    """The most times that `n` words in a row (numbers apart) stand one group after the other."""
    longest = streak = 0
    for word, earlier in zip(words[n:], words, strict=False):
        streak = streak + 1 if word == earlier and not word.isdigit() else 0
        longest = max(longest, streak)
    return longest // n + 1


def _is_length_odd(source: str, output: str) -> bool:
    wanted, got = _weight(source), _weight(output)
    return got > wanted * _MAX_LENGTH_RATIO + _LENGTH_SLACK or wanted > got * _MAX_LENGTH_RATIO + _LENGTH_SLACK


def _weight(text: str) -> float:
    """Length in letters of an alphabet."""
    if text.isascii():
        return len(text)
    extra = sum((_LETTERS_PER_CHARACTER.get(script, 1.0) - 1) * n for script, n in count_scripts(text).items())
    return len(text) + extra


def _is_wrong_script(source: str, output: str, target: Language) -> bool:
    """Latin words that stand in the source too are names, not errors."""
    wanted = scripts_of(target)
    if "Latn" in wanted and output.isascii():
        return False
    if "Latn" not in wanted:
        copied = {word for word in _WORD.findall(source) if word.isascii()}
        output = " ".join(word for word in _WORD.findall(output) if word not in copied)
    counts = count_scripts(output)
    right = sum(counts[script] for script in wanted)
    wrong = counts.total() - right
    return wrong >= _MIN_WRONG_LETTERS and wrong > right
