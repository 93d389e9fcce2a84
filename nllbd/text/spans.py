"""What in a text is not language: the parts that must survive a translation, and cores that need none at all.

Patterns only; linear in the length of the text, whatever the text. Knows no model and no segmentation.
"""

from __future__ import annotations

import re
import unicodedata

TAG = re.compile(r"""</?[A-Za-z][\w:-]*(?:\s+[\w:@.-]+=(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*\s*/?>""")
_URL_BODY = r"[\w!#$%&'()*+,\-./:;=?@\[\]~{}]*[\w#$%&*+\-/=@~}]"
_PROTECTED = re.compile(
    "|".join(
        (
            rf"(?<![A-Za-z])(?:(?:https?|ftps?|file|wss?|ssh|git)://|mailto:|www\.){_URL_BODY}",
            r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
            TAG.pattern,
            r"\{\{[^{}\n]{0,64}\}\}|\$\{[^{}\n]{1,64}\}|[#%@]\{[^{}\n]{1,64}\}|\{\s?[\w$.!:,<>^=\[\]-]{0,64}\s?\}",
            r"%\(\w{1,64}\)[-+#0]*\d*(?:\.\d+)?[sdifFgGeExXr]",
            r"(?<![\w%])%(?:\d{1,2}\$)?[-+#0]*\d*(?:\.\d+)?(?:hh|h|ll|l|z)?[sdiuxXfFgGcp@](?![A-Za-z])",
            r"(?<![\w%])%[A-Z][A-Z0-9_]+%|\$[A-Z][A-Z0-9_]+|__[A-Z][A-Z0-9_]*__",
            r"&(?:[a-zA-Z]{2,10}|#\d{1,7}|#x[0-9a-fA-F]{1,6});",
            r"`[^`\n]{1,200}`",
        )
    ),
    re.ASCII,
)
_MARKER = re.compile(r"[{}%$<@:&`_]|www\.")


def find_spans(text: str) -> list[tuple[int, int]]:
    """[start, end) of placeholders, markup, URLs, e-mail addresses and inline code, in order, not overlapping."""
    if not _MARKER.search(text):
        return []
    return [match.span() for match in _PROTECTED.finditer(text)]


_EXTENSIONS = (
    "txt|md|rst|pdf|docx?|xlsx?|pptx?|od[tsp]|csv|tsv|jsonl?|xml|ya?ml|toml|ini|cfg|conf|log|html?|css|jsx?|tsx?|py|rb|"
    "go|rs|java|kt|cc?|cpp|hh?|hpp|cs|php|sh|bat|ps1|sql|db|png|jpe?g|gif|svg|webp|ico|mp[34]|wav|ogg|flac|avi|mkv|mov|"
    "zip|tar|gz|bz2|xz|7z|rar|deb|rpm|exe|dll|so|bin|iso|lock|tmp|bak|env"
)
_DOMAINS = "com|org|net|io|dev|edu|gov|info|app|ai|co|de|fr|es|it|uk|eu|jp|cn|ru|br|ch|at|nl"
_INERT_TOKEN = re.compile(
    "|".join(
        (
            r"(?:~|\.{1,2})?(?:/[\w.@+-]+)+/?|(?:~|\.{1,2})/",  # Unix paths
            r"[A-Za-z]:\\\S*|\\\\\S+",  # Windows paths
            rf"(?:[\w.-]+/)*[\w-]+(?:\.[\w-]+)*\.(?:{_EXTENSIONS})",  # file names
            rf"(?:[a-z0-9][a-z0-9-]*\.)+(?:{_DOMAINS})(?::\d+)?(?:/\S*)?",  # host names
            r"(?:sha\d{1,3}:|0x)?(?=[a-fA-F]*\d)[0-9a-fA-F]{7,}|0x[0-9a-fA-F]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4,12}){4}",
            r"(?=[A-Za-z+/=]*\d)(?=\d*[A-Za-z])[A-Za-z0-9+/]{20,}={0,2}",  # keys and digests
            r"[vV]?\d+(?:\.\d+)+[\w.+-]*",  # versions
            r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)?",  # timestamps
            r"\w[\w.]*_[\w.]*|_+\w[\w.]*",  # identifiers
            r"--[A-Za-z][\w-]*(?:=\S*)?|-[A-Za-z]",  # command line flags
            r"[@#][\w.-]+",  # mentions, hashtags, colours
            r"[:;=]['-]?[DPpOoSs]+|[xX]D+",  # smileys with letters
        )
    ),
    re.ASCII,
)
_CLOCK = re.compile(r"\d{1,2}(?::\d\d){0,2}\s?(?:[ap]\.?m\b\.?|UTC\b|GMT\b)", re.IGNORECASE)
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|er|re|te|ten|ste)")
_LETTER_RUN = re.compile(r"[A-Za-z]+")
_TRIMMED = "\"'()[],;!?“”‘’«»„‚"
_PLAIN_LETTERS = 4
_CASED = frozenset({"Lu", "Ll", "Lt", "Lm"})


def is_language(core: str) -> bool:
    """Whether there is anything in `core` to translate.

    Numbers, dates and times in digits, punctuation, emoji, URLs, e-mail addresses, placeholders, tags, paths, file and
    host names, hashes, versions, identifiers, flags, mentions and codes such as `A4` or `10px` are not language; nor is
    a lone letter of an alphabet with upper and lower case, which is a label far more often than a word. A lone Chinese
    character, `OK` and every ordinary word are language.
    """
    if _has_plain_word(core):
        return True
    if not any(map(str.isalpha, core)):
        return False
    plain = _CLOCK.sub(" ", _PROTECTED.sub(" ", core)) if not core.isalpha() else core
    return any(_is_word(token) for token in plain.split())


def _has_plain_word(core: str) -> bool:
    """Whether some token is a word for certain: the short way to the usual answer.

    Nothing but letters, too many for a unit of time, no laughing face (`xDDD`), and no span around it.
    """
    if _MARKER.search(core):
        return False
    return any(len(token) >= _PLAIN_LETTERS and token.isalpha() and token[0] not in "xX" for token in core.split())


def _is_word(token: str) -> bool:
    letters = [char for char in token if char.isalpha()]
    if not letters or (len(letters) == 1 and unicodedata.category(letters[0]) in _CASED):
        return False
    bare = token.strip(_TRIMMED)
    return not (_INERT_TOKEN.fullmatch(bare) or _INERT_TOKEN.fullmatch(bare.rstrip(".:")) or _is_code(bare))


def _is_code(token: str) -> bool:
    """`A4`, `10px`, `x86`: digits glued to at most three ASCII letters a run; ordinals (`2nd`) are words."""
    if not token.isascii() or not token.isalnum() or token.isalpha() or _ORDINAL.fullmatch(token):
        return False
    return all(len(run) <= 3 for run in _LETTER_RUN.findall(token))
