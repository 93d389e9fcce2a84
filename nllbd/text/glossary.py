"""Terms with a fixed translation: found in a text, hidden from the model behind placeholders, put back translated.

A term is found as a whole word, in the case in which the glossary has it, or with its first letter in upper case where
the glossary's is lower (a sentence may begin with it; its translation then gets a capital, too). Of terms that begin at
the same place the longest counts. Scripts that put no space between words need no word's edges. Knows no engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_WORD = re.compile(r"\w+|[^\w\s]")
_ANY = re.compile(r"\S")
_PLACEHOLDERS = re.compile(r"\{g+\d+\}")


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose terms are placeholders, and the translation that each stands for."""

    text: str
    terms: Mapping[str, str]


def restore(text: str, terms: Mapping[str, str]) -> str:
    """Any text with the placeholders of `terms` replaced by what they stand for."""
    return _PLACEHOLDERS.sub(lambda match: terms.get(match[0], match[0]), text) if terms else text


class Glossary:
    """Terms of one pair of languages. Immutable; safe in any thread. `spaces`: the source puts space between words."""

    def __init__(self, entries: Mapping[str, str], *, spaces: bool = True) -> None:
        self._first = _WORD if spaces else _ANY
        self._spaces = spaces
        self._by_first: dict[str, list[tuple[str, str]]] = {}
        for source, target in entries.items():
            self._add(source, target)
        for source, target in entries.items():
            if (capital := _capital(source)) not in entries:
                self._add(capital, _capital(target))
        for terms in self._by_first.values():
            terms.sort(key=lambda term: -len(term[0]))

    def mask(self, text: str) -> Masked:
        """The text with each term in it replaced by a placeholder that the text does not have itself."""
        prefix = "g"
        while "{" + prefix in text:
            prefix += "g"
        parts: list[str] = []
        terms: dict[str, str] = {}
        end = 0
        for start, stop, translation in self._occurrences(text):
            placeholder = f"{{{prefix}{len(terms)}}}"
            parts += [text[end:start], placeholder]
            terms[placeholder] = translation
            end = stop
        return Masked("".join((*parts, text[end:])), terms)

    def _add(self, source: str, target: str) -> None:
        first = self._first.search(source)
        if first is not None:
            self._by_first.setdefault(first[0], []).append((source, target))

    def _occurrences(self, text: str) -> Iterator[tuple[int, int, str]]:
        end = 0
        for word in self._first.finditer(text):
            if word.start() < end:
                continue
            for source, target in self._by_first.get(word[0], ()):
                stop = word.start() + len(source)
                if text.startswith(source, word.start()) and self._ends_word(text, stop):
                    yield word.start(), stop, target
                    end = stop
                    break

    def _ends_word(self, text: str, stop: int) -> bool:
        return not self._spaces or not (text[stop - 1].isalnum() and text[stop : stop + 1].isalnum())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
