"""What is sent: sentences with a number of their own, and words that make the fake engine fail.

The fake runner gives each text back, so an answer must hold its own request's number: a mix-up of answers shows.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Mapping
from functools import cache

from bench.corpus import rows

#: Settings of `FakeScript` that react to a token; what each does to the engine.
FAULTS = {"raise_on": "a step raises", "hang_on": "a step hangs", "die_on": "kill -9 in a step"}
_numbers = itertools.count(1)


@cache
def english() -> tuple[str, ...]:
    """Sentences to make texts of."""
    return tuple(row[0] for row in rows())


def number() -> str:
    """A number that no other text of any process has."""
    return f"{os.getpid()}{next(_numbers):06d}"


def text(num_sentences: int, own: str) -> str:
    """A text that is unlike any other, for its first sentence names its number."""
    return " ".join([f"Order {own} is here.", *random.sample(english(), num_sentences - 1)])


def poison_tokens() -> Mapping[str, tuple[str, int]]:
    """For each of FAULTS a word and its token, one that no other text has."""
    from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
    from nllbd.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    used = {token for sentence in english() for token in tokenizer.encode(sentence, "eng_Latn")}
    used |= set(tokenizer.encode("Order 0123456789 is here. Please see to it.", "eng_Latn"))
    found: list[tuple[str, int]] = []
    for token in range(200, 8000):
        word = tokenizer.decode((token,)).strip()
        ids = tokenizer.encode(f"Order {word} is here.", "eng_Latn")
        if word.isalpha() and word.isascii() and len(word) > 5 and token in ids and token not in used:
            found.append((word, token))
        if len(found) == len(FAULTS):
            return dict(zip(FAULTS, found, strict=True))
    raise LookupError("the vocabulary has too few words that the corpus does not use")


def describe(poison: Mapping[str, tuple[str, int]]) -> str:
    """For an environment variable."""
    return json.dumps({fault: word for fault, (word, _) in poison.items()})
