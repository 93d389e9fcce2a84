"""chrF and BLEU of a demonstration model on its held-out rows, by direction and data file (greedy search).

python -m bench.demo_model.evaluate nllbd/demo [--rows 50]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import torch
from sacrebleu import corpus_bleu, corpus_chrf
from transformers import M2M100ForConditionalGeneration

from bench.demo_model.batches import pad
from bench.demo_model.corpus import COLUMNS, EOS, PAD, Row, Vocabulary

_BATCH = 64
_MAX_NEW_TOKENS = 64
#: Without English on either side only these are scored: the table would be long and say little more.
_OTHER_DIRECTIONS = {("fra_Latn", "deu_Latn"), ("deu_Latn", "spa_Latn")}
_SAMPLES = (
    "Hello, how are you today?",
    "Where is the train station?",
    "The file was not found.",
    "I would like a cup of coffee, please.",
    "My brother does not like vegetables.",
    "It is raining.",
    "She lives in Berlin.",
    "The weather is beautiful this morning and we are going to the park.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=0, help="at most so many held-out rows of a file; 0: all")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = M2M100ForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).to(device).eval()
    vocabulary = Vocabulary(args.model / "sentencepiece.bpe.model")
    languages = tuple(json.loads((args.model / "languages.json").read_text(encoding="utf-8")))
    held_out = json.loads((args.model / "held_out.json").read_text(encoding="utf-8"))
    evaluate(model, vocabulary, languages, [Row(source, tuple(texts)) for source, texts in held_out], args.rows)


@torch.no_grad()
def evaluate(
    model: M2M100ForConditionalGeneration,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    held_out: Sequence[Row],
    max_rows: int = 0,
) -> None:
    """Print a line for each data file and direction, then a few sentences in every language."""
    for source in sorted({row.source for row in held_out}):
        rows = [row for row in held_out if row.source == source][: max_rows or None]
        for left, right in permutations(languages, 2):
            if COLUMNS[0] in (left, right) or (left, right) in _OTHER_DIRECTIONS:
                texts = [row.texts[COLUMNS.index(left)] for row in rows]
                references = [row.texts[COLUMNS.index(right)] for row in rows]
                found = translate(model, vocabulary, texts, left, right)
                chrf, bleu = corpus_chrf(found, [references]).score, corpus_bleu(found, [references]).score
                print(f"{source:12} {left}->{right} chrF {chrf:.1f} BLEU {bleu:.1f}", flush=True)
    for language in languages[1:]:
        for text, found in zip(_SAMPLES, translate(model, vocabulary, _SAMPLES, languages[0], language), strict=True):
            print(f"   {language} | {text} => {found}", flush=True)


def translate(
    model: M2M100ForConditionalGeneration, vocabulary: Vocabulary, texts: Sequence[str], source: str, target: str
) -> list[str]:
    """Greedy translations, in order; texts of like length share a batch."""
    found = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for at in range(0, len(order), _BATCH):
        indices = order[at : at + _BATCH]
        rows = [[vocabulary.code_id(source), *vocabulary.encode(texts[index]), EOS] for index in indices]
        input_ids = pad(rows, str(model.device))
        output = model.generate(
            input_ids=input_ids,
            attention_mask=(input_ids != PAD).long(),
            forced_bos_token_id=vocabulary.code_id(target),
            num_beams=1,
            max_new_tokens=_MAX_NEW_TOKENS,
        )
        for index, ids in zip(indices, output.tolist(), strict=True):
            found[index] = vocabulary.decode(ids)
    return found


if __name__ == "__main__":
    main()
