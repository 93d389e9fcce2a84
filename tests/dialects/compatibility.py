"""The README's compatibility table, made from the record of the tests that passed.

`pytest tests/dialects --record-compatibility` writes the record and the table; `python -m tests.dialects.compatibility`
writes the table anew from the record; test_compatibility.py fails when either is not what the tests prove.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "docs" / "compatibility.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- compatibility: written by the tests of dialects -->", "<!-- end of compatibility -->"
#: Not packages: spoken to with plain HTTP.
PLAIN = ("nllb-serve", "nllb-api")
CLIENTS = (
    "deepl",
    "libretranslatepy",
    "libretranslate-aio",
    "deep-translator",
    "google-cloud-translate",
    "azure-ai-translation-text",
    *PLAIN,
)
#: In the order of the table. A feature that is not here is a mistake in a test's mark.
FEATURES = (
    "one text",
    "several texts",
    "source detected",
    "detection",
    "languages",
    "HTML",
    "alternatives",
    "several targets",
    "sentence boundaries",
    "glossaries",
    "usage",
    "empty, blank and unusual texts",
    "very long lists",
    "wrong key",
    "unknown language",
    "text too long",
    "rate limit",
    "quota",
    "overloaded",
    "draining",
    "retries until served",
)

Proof = tuple[str, str]  # client, feature


def write(proofs: Iterable[Proof]) -> None:
    """Record the proofs and put the table into the README."""
    RECORD.write_text(json.dumps(record_of(proofs), indent=2) + "\n", encoding="utf-8")
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")


def record_of(proofs: Iterable[Proof]) -> dict[str, dict[str, object]]:
    """The proofs as the record keeps them. Raises ValueError for a client or a feature that is not in the lists."""
    known = set(proofs)
    if strange := {proof for proof in known if proof[0] not in CLIENTS or proof[1] not in FEATURES}:
        raise ValueError(f"not in the lists of compatibility.py: {sorted(strange)}")
    return {
        client: {
            "version": None if client in PLAIN else version(client),
            "features": [feature for feature in FEATURES if (client, feature) in known],
        }
        for client in CLIENTS
    }


def table() -> str:
    """The table as Markdown, from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    heads = [f"{name} {record[name]['version'] or '(HTTP)'}" for name in CLIENTS]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(CLIENTS) + 1) + "|"]
    for feature in FEATURES:
        cells = ["✓" if feature in record[name]["features"] else "" for name in CLIENTS]
        if any(cells):
            lines.append(f"| {feature} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def updated(readme: str) -> str:
    """The README with today's table. Raises ValueError if it has no place for it."""
    between = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not between.search(readme):
        raise ValueError(f"README has no {BEGIN}")
    return between.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", readme)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
