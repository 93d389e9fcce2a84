"""Texts in many languages from the message catalogues (.mo) that Debian packages ship: what detectors are measured on.

The packages are downloaded by apt and unpacked beside, never installed. Kept are messages whose language is plain:
prose without placeholders and markup, in one language's catalogues only (so none that was left untranslated). English
is what was translated.
"""

from __future__ import annotations

import gettext
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nllbd.errors import UnknownLanguage
from nllbd.languages import resolve
from nllbd.text.scripts import count_scripts, scripts_of

#: Debian packages with catalogues in many languages.
PACKAGES = (
    *("apt", "aptitude-common", "caja-common", "cinnamon-l10n", "coreutils", "dpkg", "evolution-data-server-common"),
    *("gedit-common", "gettext", "gnome-control-center-data", "libglib2.0-data", "libgtk-3-common"),
    *("mate-control-center-common", "nautilus-data", "pidgin-data", "python3-django", "python3-djangorestframework"),
    *("sphinx-common", "vlc-l10n"),
)
#: The one whose licence (BSD) lets a sample of it stand in the tests.
SAMPLE_PACKAGE = "python3-django"
MAX_SHORT_CHARACTERS, MAX_SHORT_WORDS, MIN_LONG_CHARACTERS, MAX_LONG_CHARACTERS = 25, 3, 100, 400
_ENGLISH = "eng_Latn"
_MIN_LETTERS = 4
_MIN_LETTER_SHARE = 0.7
_OTHER_SCRIPT_SHARE = 0.2
#: Variants that NLLB-200 has no language for, or in which a catalogue mixes several.
_SKIPPED = re.compile(r"en([_@].*)?|.*@.*|C|.*Big5.*|ks.*|zh$|zh_HK")
_MARKUP = re.compile(r"[%<>{}&\\|$=@#\[\]]|https?:|--|\n\s*\n")
_ACCELERATOR = re.compile(r"_(?=\w)|\s*\(_?[A-Z]\)|(?<=\w)_")


@dataclass(frozen=True)
class Texts:
    """Short and long texts of one language, distinct, in a fixed order."""

    short: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)


def unpack(packages: Iterable[str], folder: Path) -> list[Path]:
    """Download and unpack Debian packages into `folder` (what is there already is kept); returns their folders."""
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = []
    for package in packages:
        target = folder / package
        if not target.is_dir():
            subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True, capture_output=True)
            (archive,) = folder.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
            archive.unlink()
        unpacked.append(target)
    return unpacked


def read_texts(folders: Iterable[Path]) -> dict[str, Texts]:
    """FLORES code → texts, for each language that NLLB-200 has and some catalogue is in."""
    by_code: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for catalogue in sorted(folder.rglob("*.mo")):
            code = code_of(locale_of(catalogue))
            if code is not None:
                for message, text in _messages(catalogue):
                    by_code[code].add(text)
                    by_code[_ENGLISH].add(message)
    num_languages = Counter(text for texts in by_code.values() for text in texts)
    return {
        code: _sorted_out(t for t in sorted(texts) if num_languages[t] == 1 and _is_plain(t, scripts_of_code(code)))
        for code, texts in sorted(by_code.items())
    }


def locale_of(catalogue: Path) -> str:
    """The folder above LC_MESSAGES names it."""
    return catalogue.parent.parent.name


def code_of(locale: str) -> str | None:
    """The FLORES code of a POSIX locale; None for what NLLB-200 has no language for."""
    if _SKIPPED.fullmatch(locale):
        return None
    try:
        return resolve(locale).code
    except UnknownLanguage:
        return None


def _messages(catalogue: Path) -> Iterator[tuple[str, str]]:
    """Each message that is translated, and its translation."""
    try:
        with catalogue.open("rb") as stream:
            entries = gettext.GNUTranslations(stream)._catalog.items()  # type: ignore[attr-defined]
    except (OSError, ValueError, LookupError):
        return
    for message, translation in entries:
        if message and isinstance(message, str) and isinstance(translation, str) and _plain(translation):
            yield _plain(message.split("\x04")[-1]), _plain(translation)  # what stands before says where it is used


def scripts_of_code(code: str) -> frozenset[str]:
    return scripts_of(resolve(code))


def _plain(text: str) -> str:
    return " ".join(_ACCELERATOR.sub("", text).rstrip(":….").split())


def _is_plain(text: str, allowed: frozenset[str]) -> bool:
    """Prose in the language's own script: few digits, no placeholders, hardly a foreign word."""
    if _MARKUP.search(text) or len(text) > MAX_LONG_CHARACTERS:
        return False
    scripts = count_scripts(text)
    letters = scripts.total()
    own = sum(scripts[script] for script in allowed)
    dense = letters + sum(char.isspace() for char in text)
    marks = sum(not (char.isascii() or char.isalnum()) for char in text)  # vowel signs are no letters
    enough = own >= (2 if allowed & {"Hani", "Hang"} else _MIN_LETTERS)
    return enough and own >= (1 - _OTHER_SCRIPT_SHARE) * letters and dense + marks >= _MIN_LETTER_SHARE * len(text)


def _sorted_out(texts: Iterable[str]) -> Texts:
    found = Texts()
    for text in texts:
        if len(text) <= MAX_SHORT_CHARACTERS and len(text.split()) <= MAX_SHORT_WORDS:
            found.short.append(text)
        elif len(text) >= MIN_LONG_CHARACTERS:
            found.long.append(text)
    return found
