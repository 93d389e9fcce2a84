"""`/translate` and `/detect` serve several dialects: which one does a request speak?

A dialect is recognised by names that only it uses. A new one adds a row to `MARKS` and a branch to the handlers.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Any

from nllbd.errors import InvalidValue


class Dialect(enum.StrEnum):
    NATIVE = "native"


#: (dialect, names in the query that give it away, names in the body that do)
MARKS: tuple[tuple[Dialect, frozenset[str], frozenset[str]], ...] = (
    (Dialect.NATIVE, frozenset(), frozenset({"source_lang", "target_lang"})),
)


def recognise(query: Collection[str], body: Mapping[str, Any]) -> Dialect:
    """The dialect of a request; the native one if nothing tells.

    Raises InvalidValue if it bears the marks of several.
    """
    found = [name for name, in_query, in_body in MARKS if in_query.intersection(query) or in_body.intersection(body)]
    if len(found) > 1:
        raise InvalidValue(f"the request mixes the forms of {' and '.join(found)}; use one of them")
    return found[0] if found else Dialect.NATIVE
