"""Which dialect does a request speak? Known in part from path, query and headers, for good once the body is read.

`/translate`, `/detect` and `/languages` serve several dialects; each is recognised by names that only it uses. A new
one adds a member to `Dialect`, its marks below, a module in `dialects/` and its routes in `endpoints/`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from nllbd.errors import InvalidValue


class Dialect(enum.StrEnum):
    NATIVE = "native"
    LIBRETRANSLATE = "libretranslate"
    DEEPL = "deepl"
    GOOGLE = "google"
    AZURE = "azure"
    NLLB_SERVE = "nllb-serve"
    NLLB_API = "nllb-api"


#: (dialect, names in the query that give it away, names in the body that do)
MARKS: tuple[tuple[Dialect, frozenset[str], frozenset[str]], ...] = (
    (Dialect.NATIVE, frozenset(), frozenset({"source_lang", "target_lang"})),
    (Dialect.LIBRETRANSLATE, frozenset({"q"}), frozenset({"q"})),
    (Dialect.NLLB_SERVE, frozenset({"src_lang", "tgt_lang"}), frozenset({"src_lang", "tgt_lang"})),
    (Dialect.AZURE, frozenset({"api-version"}), frozenset()),
)
#: (dialect, what its own paths begin with). `/v3/` is DeepL's, too: answered 404 in its shape.
_PATHS = (
    (Dialect.DEEPL, ("/v2/", "/v3/")),
    (Dialect.GOOGLE, ("/language/translate/",)),
    (Dialect.NLLB_API, ("/api/v4/",)),
    (Dialect.AZURE, ("/breaksentence", "/transliterate", "/dictionary/")),
    (Dialect.LIBRETRANSLATE, ("/suggest", "/translate_file", "/frontend/")),
)
_SHARED_PATHS = frozenset({"/translate", "/detect", "/languages"})
#: Names that LibreTranslate shares with others, telling where nothing else does: a request of its that lacks `q`.
_LIBRETRANSLATE_HINTS = frozenset({"target", "api_key"})
_AZURE_HEADERS = frozenset({"ocp-apim-subscription-key", "ocp-apim-subscription-region"})
#: Besides the native form, what `/detect` speaks.
_DETECTORS = frozenset({Dialect.LIBRETRANSLATE, Dialect.AZURE})
FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def expect(path: str, query: Collection[str], headers: Collection[str], content_type: str) -> Dialect:
    """The dialect that a request seems to speak, before its body is read: errors are told in it until then.

    `headers` are the names of the headers, in lower case or compared without regard to it. Never raises.
    """
    for dialect, prefixes in _PATHS:
        if path.startswith(prefixes):
            return dialect
    if path not in _SHARED_PATHS:
        return Dialect.NATIVE
    found = _marked(query, ())
    if found:
        return found[-1]
    if any(name in headers for name in _AZURE_HEADERS):
        return Dialect.AZURE
    return Dialect.LIBRETRANSLATE if content_type in FORM_TYPES else Dialect.NATIVE


def recognise(query: Collection[str], body: Collection[str], otherwise: Dialect = Dialect.NATIVE) -> Dialect:
    """The dialect of a request for translation; `otherwise` if nothing tells. Both are names of fields.

    Raises InvalidValue if it bears the marks of several.
    """
    found = _marked(query, body)
    _check_single(found)
    if found:
        return found[0]
    names = {*query, *body}
    if not names.isdisjoint(_LIBRETRANSLATE_HINTS) and "text" not in names:
        return Dialect.LIBRETRANSLATE
    return otherwise


def recognise_detection(query: Collection[str], body: Collection[str], otherwise: Dialect) -> Dialect:
    """The same for `/detect`, where the native form has but `text`."""
    found = [dialect for dialect in _marked(query, body) if dialect in _DETECTORS]
    if "text" in body:
        found.append(Dialect.NATIVE)
    _check_single(found)
    return found[0] if found else otherwise


def _marked(query: Collection[str], body: Collection[str]) -> list[Dialect]:
    return [name for name, in_query, in_body in MARKS if in_query.intersection(query) or in_body.intersection(body)]


def _check_single(found: list[Dialect]) -> None:
    if len(found) > 1:
        raise InvalidValue(f"the request mixes the forms of {' and '.join(found)}; use one of them")
