"""Simplified or traditional: the form in which Chinese is written, told by its characters."""

from __future__ import annotations

from functools import lru_cache


def chinese_of(text: str) -> str:
    """The FLORES code of a Chinese text; `zho_Hans` when nothing tells."""
    return "zho_Hant" if sum(map(form, text)) > 0 else "zho_Hans"


@lru_cache(maxsize=32_768)
def form(char: str) -> int:
    """1 for a character that only traditional Chinese writes, -1 for one that only simplified does, else 0.

    The national character sets tell: GB 2312 has the simplified forms alone, Big5 the traditional ones.
    """
    return _is_in("big5", char) - _is_in("gb2312", char)


def _is_in(charset: str, char: str) -> bool:
    try:
        char.encode(charset)
    except UnicodeEncodeError:
        return False
    return True
