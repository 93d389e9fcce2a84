"""How good outputs are: the share equal to others, and BLEU and chrF against human references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """`equal` is a share of 1; the scores are sacrebleu's (0–100), None where it is not installed."""

    equal: float
    bleu: float | None
    chrf: float | None


def equal_share(outputs: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Share of outputs that are the same, id for id."""
    pairs = list(zip(outputs, others, strict=True))
    return sum(list(one) == list(other) for one, other in pairs) / len(pairs)


def scores(translations: Sequence[str], references: Sequence[str]) -> tuple[float, float] | None:
    """Corpus (BLEU, chrF); None without sacrebleu."""
    try:
        import sacrebleu
    except ImportError:
        return None
    bleu = sacrebleu.corpus_bleu(list(translations), [list(references)]).score
    return bleu, sacrebleu.corpus_chrf(list(translations), [list(references)]).score
