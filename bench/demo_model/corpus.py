"""The demonstration model's data: rows of six languages, what is held out of them, and the vocabulary they give.

Token ids are those of NLLB-200: `<s> <pad> </s> <unk>`, SentencePiece pieces at (piece id + 1), the 202 language codes,
`<mask>`.
"""

from __future__ import annotations

import json
import lzma
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sentencepiece

from nllbd.languages import MODEL_CODES

COLUMNS = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "por_Latn", "ita_Latn")
BOS, PAD, EOS, UNK = 0, 1, 2, 3
HELD_OUT_PER_FILE = 250
NEVER_HELD_OUT = "everyday"  # what people type first: all of it is trained on
_FILE = "sentencepiece.bpe.model"


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence in all six languages, and the data file (without endings) that it is from."""

    source: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on and rows kept from it; `weights` says how often a file's rows are seen in an epoch."""

    train: list[Row]
    held_out: list[Row]
    weights: Mapping[str, float] = field(default_factory=dict)

    def epoch(self) -> list[int]:
        """Indices into `train`, each as often as its weight says (fractions by chance), shuffled."""
        order = []
        for index, row in enumerate(self.train):
            weight = self.weights.get(row.source, 1.0)
            order += [index] * (int(weight) + (random.random() < weight % 1))
        random.shuffle(order)
        return order


class Vocabulary:
    """SentencePiece and language codes as NLLB-200's ids."""

    def __init__(self, path: Path) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._code_ids = {code: len(self._pieces) + 1 + index for index, code in enumerate(MODEL_CODES)}

    def __len__(self) -> int:
        return len(self._pieces) + 1 + len(MODEL_CODES) + 1 + 2  # two spare ids, as in NLLB-200's own files

    def encode(self, text: str) -> list[int]:
        return [piece + 1 if piece else UNK for piece in self._pieces.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._pieces.decode([it - 1 for it in ids if UNK < it <= len(self._pieces)]))

    def code_id(self, code: str) -> int:
        return self._code_ids[code]


def read_rows(folder: Path) -> Iterator[Row]:
    """All distinct complete rows of the folder's `*.tsv` and `*.tsv.xz`, headers left out."""
    seen = {"eng", "English", "eng_Latn"}
    for path in sorted(folder.iterdir()):
        if ".tsv" not in path.name:
            continue
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                texts = tuple(cell.strip() for cell in line.rstrip("\n").split("\t"))
                if len(texts) == len(COLUMNS) and all(texts) and texts[0] not in seen:
                    seen.add(texts[0])
                    yield Row(path.name.partition(".")[0], texts)


def split(rows: list[Row], weights: Mapping[str, float], init: Path | None) -> Split:
    """Hold rows out of each file at random; a run that goes on from `init` keeps that one's."""
    random.shuffle(rows)
    if init is not None:
        held_out = [Row(source, tuple(texts)) for source, texts in json.loads((init / "held_out.json").read_text())]
        kept = {row.texts[0] for row in held_out}
        return Split([row for row in rows if row.texts[0] not in kept], held_out, weights)
    train: list[Row] = []
    held_out = []
    counts = Counter[str]()
    for row in rows:
        if row.source == NEVER_HELD_OUT or counts[row.source] >= HELD_OUT_PER_FILE:
            train.append(row)
        else:
            counts[row.source] += 1
            held_out.append(row)
    return Split(train, held_out, weights)


def write_held_out(rows: Sequence[Row], folder: Path) -> None:
    content = json.dumps([[row.source, row.texts] for row in rows], ensure_ascii=False)
    (folder / "held_out.json").write_text(content, encoding="utf-8")


def make_vocabulary(texts: Iterator[str], size: int, folder: Path, init: Path | None) -> Vocabulary:
    """Train a BPE vocabulary of `size` pieces into `folder`, or take over that of `init`."""
    if init is not None:
        shutil.copy(init / _FILE, folder / _FILE)
    else:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_prefix=str(folder / _FILE.removesuffix(".model")),
            vocab_size=size,
            model_type="bpe",
            character_coverage=0.9999,
            input_sentence_size=600_000,
            shuffle_input_sentence=True,
            num_threads=2,
            minloglevel=2,
        )
        (folder / _FILE).with_suffix(".vocab").unlink()
    return Vocabulary(folder / _FILE)
