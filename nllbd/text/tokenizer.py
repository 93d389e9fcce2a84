"""Text ↔ token ids of an NLLB-200 checkpoint: SentencePiece pieces plus the ids that NLLB puts around them.

Ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then SentencePiece piece id + 1, then the 202 language codes from
`len(pieces) + 1` on in the order of `MODEL_CODES`. SentencePiece is used directly because it is thread-safe and the
tokenizer of transformers is not (its source language is shared state). Nothing in a text is read as a special token:
`</s>` or `fra_Latn` typed by a user are letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import sentencepiece

from nllbd.checkpoint import Checkpoint
from nllbd.errors import CheckpointError, UnknownLanguage
from nllbd.languages import MODEL_CODES, Languages

EOS_ID = 2
UNK_ID = 3
#: How an `<unk>` of the model's output is written. No vocabulary has the character: NFKC makes `??` of it.
UNK_MARK = "⁇"

_OFFSET = 1  # id = piece id + 1, `<unk>` (piece 0) apart
_FIRST_PIECE_ID = UNK_ID + 1
_SPACE = "▁"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_REMEMBERED = 16
_MAX_REMEMBERED_CHARACTERS = 1_000


class Tokenizer:
    """Tokenizer of one checkpoint. Immutable after construction, so any thread may use it.

    Attributes:
        languages: the languages the checkpoint was trained on.
        unk_id: id of `<unk>`.
        num_ids: how many ids specials, pieces and language codes take; a model's vocabulary may be padded beyond.
    Raises CheckpointError when the SentencePiece model cannot be read or does not fit NLLB's ids.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._processor = _load(checkpoint)
        self._num_pieces: int = self._processor.get_piece_size()
        # A sentence is counted, searched for unknown characters and encoded in a row: segment it once.
        self._remembered = lru_cache(_REMEMBERED)(self._segment)
        self._pieces: tuple[str, ...] = tuple(self._processor.id_to_piece(list(range(self._num_pieces))))
        self._legacy = checkpoint.legacy_code_position
        self._language_ids = {code: self._num_pieces + _OFFSET + i for i, code in enumerate(MODEL_CODES)}
        self.languages = _languages(checkpoint)
        self.unk_id = UNK_ID
        if self._pieces[:3] != ("<unk>", "<s>", "</s>"):
            raise CheckpointError(f"{checkpoint.sentencepiece_path}: pieces start {self._pieces[:3]}; not NLLB's")
        self.num_ids = self._num_pieces + _OFFSET + len(MODEL_CODES)
        if checkpoint.config.vocab_size < self.num_ids:
            raise CheckpointError(
                f"{checkpoint.path / 'config.json'}: vocab_size {checkpoint.config.vocab_size} has no room for "
                f"{self._num_pieces} pieces and {len(MODEL_CODES)} language codes; do config.json and "
                f"{checkpoint.sentencepiece_path.name} match?"
            )

    def encode(self, text: str, source_code: str) -> tuple[int, ...]:
        """The encoder's whole input: code, pieces, `</s>`; in legacy checkpoints pieces, `</s>`, code.

        Raises UnknownLanguage for a code that is not the model's.
        """
        code, pieces = self.language_id(source_code), self._piece_ids(text)
        ids = [piece + _OFFSET if piece else UNK_ID for piece in pieces]
        return (*ids, EOS_ID, code) if self._legacy else (code, *ids, EOS_ID)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Specials, language codes and ids that mean nothing are dropped; `<unk>` becomes `UNK_MARK`."""
        return "".join(map(self._written, ids)).replace(_SPACE, " ").strip(" ")

    def count_tokens(self, text: str) -> int:
        """How many pieces the text has; language code and `</s>` not counted."""
        return len(self._piece_ids(text))

    def unknown_spans(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of what the vocabulary cannot express, in order: one for each `<unk>` of `encode`."""
        if 0 not in self._piece_ids(text):
            return []
        mapping = self._processor.encode(_scalar(text), return_type="offset_mapping")
        return [span for piece, span in zip(mapping["ids"], mapping["offsets"], strict=True) if piece == 0]

    def language_id(self, code: str) -> int:
        """Id of a FLORES code. Raises UnknownLanguage."""
        try:
            return self._language_ids[code]
        except KeyError:
            raise UnknownLanguage(f"{code!r} is not a language code of NLLB-200") from None

    def _piece_ids(self, text: str) -> Sequence[int]:
        return self._remembered(text) if len(text) <= _MAX_REMEMBERED_CHARACTERS else self._segment(text)

    def _segment(self, text: str) -> Sequence[int]:
        ids: list[int] = self._processor.encode(_scalar(text))
        return ids

    def _written(self, token_id: int) -> str:
        if token_id == UNK_ID:
            return UNK_MARK
        if _FIRST_PIECE_ID <= token_id <= self._num_pieces:
            return self._pieces[token_id - _OFFSET]
        return ""


def _scalar(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot express: U+FFFD, which SentencePiece takes for white
    space, stands in their place."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _load(checkpoint: Checkpoint) -> sentencepiece.SentencePieceProcessor:
    path = checkpoint.sentencepiece_path
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a SentencePiece model: {error}") from None


def _languages(checkpoint: Checkpoint) -> Languages:
    try:
        return Languages(checkpoint.languages)
    except UnknownLanguage as error:
        raise CheckpointError(f"{checkpoint.path / 'languages.json'}: {error.message}") from None
