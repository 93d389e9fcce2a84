"""The table of settings written down: the sample file, the README's table, and what `config show` prints.

`python -m nllbd.config.render README.md` writes the table into a file between its two marks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from nllbd.config.table import ROWS, Row, Settings

BEGIN, END = "<!-- settings: written by `make docs` -->", "<!-- end of settings -->"
_HEAD = """\
# nllbd's settings. Copy to /etc/nllbd/nllbd.toml, or give the file with --config.
# A flag beats the environment, the environment beats this file. Every line below is the default or an example.
"""


def sample() -> str:
    """A TOML file with every setting, commented out."""
    return "\n".join((_HEAD, *_sample_lines())) + "\n"


def markdown() -> str:
    """A Markdown table of every setting."""
    lines = ["| name | default | what | environment |", "|---|---|---|---|"]
    lines += (f"| `{row.name}` | {row.described_default} | {row.purpose} | {_environ(row)} |" for row in ROWS)
    return "\n".join(lines) + "\n"


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """(name, value, origin) of every setting, secrets masked."""
    return [(row.name, _written(row, settings), settings.origin(row.name)) for row in ROWS]


def insert_table(document: str) -> str:
    """`document` with the table between BEGIN and END. Raises ValueError when the marks are missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are missing")
    return f"{before}{BEGIN}\n{markdown()}{END}{after}"


def _sample_lines() -> Iterator[str]:
    for group, rows in groupby(ROWS, key=lambda row: row.group):
        yield f"\n# ---- {group} ----"
        for row in rows:
            yield f"\n# {row.purpose} (default: {row.described_default})".replace("`", "")
            yield f"# {_environ(row).replace('`', '')}" + ("; SIGHUP applies a change" if row.live else "")
            yield f"#{row.name} = {row.example or toml(row.kind.write(row.default), row.default)}"


def toml(written: str, value: Any) -> str:
    """A default as a TOML value; sizes with units are strings there."""
    if isinstance(value, tuple):
        return json.dumps(list(value))
    is_bare = isinstance(value, bool | float) or (isinstance(value, int) and written.isdigit())
    return written if is_bare else json.dumps(written)


def _environ(row: Row) -> str:
    names = [f"NLLBD_{row.name.upper()}", *([row.bare] if row.bare else [])]
    suffix = " (or `…_FILE`)" if row.has_file_form else ""
    return ", ".join(f"`{name}`" for name in names) + suffix


def _written(row: Row, settings: Settings) -> str:
    value = row.shown(getattr(settings, row.name))
    return "-" if value is None else row.kind.write(value) or "-"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(insert_table(path.read_text(encoding="utf-8")), encoding="utf-8")
