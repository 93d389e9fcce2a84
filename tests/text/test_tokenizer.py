from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from nllbd.checkpoint import DEMO_FOLDER, Checkpoint, read_checkpoint
from nllbd.errors import CheckpointError, UnknownLanguage
from nllbd.languages import MODEL_CODES
from nllbd.text.tokenizer import EOS_ID, UNK_ID, UNK_MARK, Tokenizer

CHECKPOINT = read_checkpoint(DEMO_FOLDER)
TOKENIZER = Tokenizer(CHECKPOINT)
DEMO_CODES = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn")


def reference_ids(processor: sentencepiece.SentencePieceProcessor, text: str, code: str) -> tuple[int, ...]:
    """What fairseq's dictionary makes of the pieces: four specials of its own, then the pieces from the fourth on."""
    specials = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    pieces = processor.encode(text, out_type=str)
    ids = [processor.piece_to_id(piece) + 1 if processor.piece_to_id(piece) else specials["<unk>"] for piece in pieces]
    return (len(processor) + 1 + MODEL_CODES.index(code), *ids, specials["</s>"])


def test_ids_are_those_of_the_fairseq_dictionary(held_out: list[dict[str, str]]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(CHECKPOINT.sentencepiece_path))
    for row in held_out:
        for code in DEMO_CODES:
            assert TOKENIZER.encode(row[code], code) == reference_ids(processor, row[code], code)


def test_ids_and_text_are_those_of_transformers(held_out: list[dict[str, str]]) -> None:
    pytest.importorskip("google.protobuf", reason="transformers needs protobuf to read a SentencePiece model")
    from transformers import NllbTokenizer

    theirs = NllbTokenizer.from_pretrained(str(DEMO_FOLDER))
    for row in held_out[:300]:
        for code in DEMO_CODES:
            ids = TOKENIZER.encode(row[code], code)
            # The checkpoint's folder does not list the language codes, so theirs has no id for them: the rest counts.
            assert ids[1:] == tuple(theirs(row[code])["input_ids"][1:])
            if UNK_ID not in ids:
                assert TOKENIZER.decode(ids) == theirs.decode(ids, skip_special_tokens=True).strip()


def test_language_ids_follow_the_pieces() -> None:
    ids = [TOKENIZER.language_id(code) for code in MODEL_CODES]
    assert ids[0] == 8001
    assert all(b == a + 1 for a, b in pairwise(ids))
    with pytest.raises(UnknownLanguage, match="xxx_Latn"):
        TOKENIZER.language_id("xxx_Latn")
    with pytest.raises(UnknownLanguage):
        TOKENIZER.encode("x", "en")


def test_legacy_checkpoints_have_the_code_last() -> None:
    legacy = Tokenizer(dataclasses.replace(CHECKPOINT, legacy_code_position=True))
    code, *pieces, eos = TOKENIZER.encode("Good morning.", "eng_Latn")
    assert eos == EOS_ID
    assert legacy.encode("Good morning.", "eng_Latn") == (*pieces, eos, code)


@given(st.text())
def test_round_trip_of_known_text_and_none_crash(text: str) -> None:
    ids = TOKENIZER.encode(text, "eng_Latn")
    decoded = TOKENIZER.decode(ids)
    assert TOKENIZER.count_tokens(text) == len(ids) - 2
    assert decoded.count(UNK_MARK) == ids.count(UNK_ID) == len(TOKENIZER.unknown_spans(text))
    if UNK_ID not in ids:
        assert TOKENIZER.encode(decoded, "eng_Latn") == ids


@given(st.lists(st.integers() | st.integers(-10, 8300)))
def test_any_ids_decode(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert not any(code in text for code in MODEL_CODES)
    assert "</s>" not in text
    assert text.count(UNK_MARK) == ids.count(UNK_ID)


def test_specials_in_a_text_are_letters() -> None:
    ids = TOKENIZER.encode("fra_Latn </s> <pad> eng_Latn", "eng_Latn")
    assert ids.count(EOS_ID) == 1
    assert all(id_ < 8001 for id_ in ids[1:])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc80" * 1000, "\ud83d\ude00"])
def test_lone_surrogates_do_not_crash(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, "eng_Latn")).encode("utf-8") in (b"", b"a b")
    assert TOKENIZER.unknown_spans(text) == []


def test_unknown_spans_are_where_the_characters_are() -> None:
    text = "I am 王小明 and 😀😀 ok"
    assert [text[a:b] for a, b in TOKENIZER.unknown_spans(text)] == ["王小明", "😀😀"]


def test_many_threads_agree() -> None:
    texts = [f"This is sentence number {i}." for i in range(200)]
    codes = [DEMO_CODES[i % 4] for i in range(200)]
    alone = [TOKENIZER.encode(*pair) for pair in zip(texts, codes, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(TOKENIZER.encode, texts, codes)) == alone


def test_languages_are_the_checkpoints() -> None:
    assert set(TOKENIZER.languages.codes) == set(DEMO_CODES)
    assert len(Tokenizer(dataclasses.replace(CHECKPOINT, languages=None)).languages) == 202


def broken(path: Path, **changes: object) -> Checkpoint:
    return dataclasses.replace(CHECKPOINT, path=path, **changes)


def test_broken_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        Tokenizer(broken(tmp_path))
    with pytest.raises(CheckpointError, match=r"languages\.json.*xxx_Latn"):
        Tokenizer(dataclasses.replace(CHECKPOINT, languages=("xxx_Latn",)))
    small = dataclasses.replace(CHECKPOINT.config, vocab_size=8000)
    with pytest.raises(CheckpointError, match="no room"):
        Tokenizer(dataclasses.replace(CHECKPOINT, config=small))
