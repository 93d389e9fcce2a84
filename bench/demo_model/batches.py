"""Training examples and batches of them: which direction a row is shown in, and which examples share a batch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.demo_model.corpus import COLUMNS, EOS, PAD, Split, Vocabulary

Example = tuple[list[int], list[int]]  # source ids, target ids; both begin with their language's code, end with </s>
_ROWS_AT_A_TIME = 20_000
_DIRECTIONS_PER_ROW = 2


@dataclass(frozen=True, slots=True)
class Batching:
    """Which languages are taught, and how batches are filled. `non_english`: share of pairs without English."""

    languages: tuple[str, ...]
    tokens_per_batch: int
    max_tokens: int
    non_english: float


class Batches:
    """An endless supply of batches from a corpus, encoded once."""

    def __init__(self, split: Split, vocabulary: Vocabulary, batching: Batching) -> None:
        self._split = split
        self._batching = batching
        columns = [COLUMNS.index(code) for code in batching.languages]
        self._ids = [[vocabulary.encode(row.texts[column]) for column in columns] for row in split.train]
        self._codes = [vocabulary.code_id(code) for code in batching.languages]
        others = range(1, len(columns))
        self._english_pairs = [(0, it) for it in others] + [(it, 0) for it in others]
        self._other_pairs = [(source, target) for source in others for target in others if source != target]

    def __iter__(self) -> Iterator[list[Example]]:
        while True:
            order = self._split.epoch()
            for at in range(0, len(order), _ROWS_AT_A_TIME):
                yield from self._filled(self._examples(order[at : at + _ROWS_AT_A_TIME]))

    def _examples(self, rows: Sequence[int]) -> list[Example]:
        """Each row in one or two random directions, unless it is too long."""
        examples = []
        longest = self._batching.max_tokens
        for row in rows:
            for _ in range(_DIRECTIONS_PER_ROW):
                source, target = self._direction()
                left, right = self._ids[row][source], self._ids[row][target]
                if max(len(left), len(right)) <= longest:
                    examples.append(([self._codes[source], *left, EOS], [self._codes[target], *right, EOS]))
        return examples

    def _direction(self) -> tuple[int, int]:
        without_english = self._other_pairs and random.random() < self._batching.non_english
        return random.choice(self._other_pairs if without_english else self._english_pairs)

    def _filled(self, examples: list[Example]) -> list[list[Example]]:
        """Batches of examples of nearly equal length, up to so many padded tokens, shuffled."""
        examples.sort(key=lambda pair: (len(pair[1]) + random.random() * 2, len(pair[0])))
        batches: list[list[Example]] = []
        batch: list[Example] = []
        widest = 0
        for example in examples:
            width = max(widest, *map(len, example))
            if batch and width * (len(batch) + 1) > self._batching.tokens_per_batch:
                batches.append(batch)
                batch, width = [], max(map(len, example))
            batch.append(example)
            widest = width
        if batch:
            batches.append(batch)
        random.shuffle(batches)
        return batches


def pad(rows: Sequence[Sequence[int]], device: str) -> Tensor:
    """`rows` as one tensor [len(rows), longest], padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows]).to(device, non_blocking=True)
