"""What is translated: held-out rows of the demonstration data, with their own lengths, and texts made of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nllbd.checkpoint import DEMO_FOLDER

COLUMNS = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "por_Latn", "ita_Latn")
#: Those that the bundled model knows.
LANGUAGES = COLUMNS[:4]
#: Sentences of each kind of text, from … to; and how often it comes.
KINDS = {"sentence": (1, 1), "paragraph": (3, 8), "document": (20, 40)}
MIX = {"sentence": 0.70, "paragraph": 0.25, "document": 0.05}
MAX_CHARACTERS = 4_500  # below the server's default limit of a text


@dataclass(frozen=True)
class Sentence:
    """One held-out sentence, where it is to go, and what a human made of it."""

    text: str
    source: str
    target: str
    reference: str


@dataclass(frozen=True)
class Text:
    """A request's text: `kind` is a key of KINDS."""

    kind: str
    text: str
    source: str
    target: str


def rows() -> list[tuple[str, ...]]:
    """Held-out rows, columns as in COLUMNS."""
    held_out = json.loads((DEMO_FOLDER / "held_out.json").read_text(encoding="utf-8"))
    return [tuple(cells) for _, cells in held_out if len(cells) == len(COLUMNS) and all(cells)]


def directions(text: str) -> list[tuple[str, str]]:
    """`eng_Latn-fra_Latn,eng_Latn-deu_Latn` → pairs. Raises ValueError for what the model does not know."""
    pairs = [tuple(item.strip().split("-")) for item in text.split(",")]
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(LANGUAGES) or pair[0] == pair[1]:
            raise ValueError(f"{'-'.join(pair)!r} is no direction between two of {', '.join(LANGUAGES)}")
    return [(source, target) for source, target in pairs]


def sentences(count: int, pairs: Sequence[tuple[str, str]], seed: int) -> list[Sentence]:
    """`count` sentences in random order, each a row of its own while there are enough; directions take turns."""
    known = rows()
    random.Random(seed).shuffle(known)
    made = []
    for number in range(count):
        source, target = pairs[number % len(pairs)]
        row = known[number % len(known)]
        made.append(Sentence(row[COLUMNS.index(source)], source, target, row[COLUMNS.index(target)]))
    return made


def evenly(items: Sequence[Sentence], count: int) -> list[int]:
    """Indices of `count` sentences that stand for all in length: evenly spaced among them, shortest to longest."""
    order = sorted(range(len(items)), key=lambda index: len(items[index].text))
    count = min(count, len(order))
    return [order[int((place + 0.5) * len(order) / count)] for place in range(count)]


def texts(count: int, pairs: Sequence[tuple[str, str]], seed: int, mix: dict[str, float] | None = None) -> list[Text]:
    """`count` requests, kinds in the proportions of the mix (each at least once), in random order.

    No sentence occurs twice until the rows of all languages are used up.
    """
    rng = random.Random(seed)
    mix = MIX if mix is None else mix
    kinds = [kind for kind, share in mix.items() for _ in range(max(1, round(count * share)))][-count:]
    supply = {source: _endless(COLUMNS.index(source), rng) for source, _ in pairs}
    made = []
    for number, kind in enumerate(kinds):
        source, target = pairs[number % len(pairs)]
        parts = [next(supply[source]) for _ in range(rng.randint(*KINDS[kind]))]
        while len(parts) > 1 and sum(map(len, parts)) + len(parts) > MAX_CHARACTERS:
            parts.pop()
        made.append(Text(kind, " ".join(map(_ended, parts)), source, target))
    rng.shuffle(made)
    return made


def _endless(column: int, rng: random.Random) -> Iterator[str]:
    while True:
        cells = [row[column] for row in rows()]
        rng.shuffle(cells)
        yield from cells


def _ended(sentence: str) -> str:
    """With a full stop where it has none: labels of programs would run together in a text."""
    return sentence if sentence[-1] in ".!?…" else f"{sentence}."
