"""CTranslate2's conversion of a widened checkpoint translates as the small one does."""

from pathlib import Path

import pytest

from bench.child import Child, Spec
from bench.contestants import Output
from bench.corpus import sentences
from bench.peers import convert_for_ctranslate2, quantize_for_nllbd, vocabulary
from bench.widen import Shape, widen
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.tokenizer import Tokenizer

MAX_LENGTH = 48


def outputs(spec: Spec, how: dict[str, object]) -> list[Output]:
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    pairs = [("eng_Latn", "fra_Latn"), ("deu_Latn", "spa_Latn")]
    jobs = [
        (tokenizer.encode(it.text, it.source), tokenizer.language_id(it.target)) for it in sentences(12, pairs, seed=2)
    ]
    with Child(spec) as child:
        assert child.loaded.loaded_rss >= child.loaded.imported_rss > 0
        reply = child.translate(jobs, 1, MAX_LENGTH, how)
        assert reply.seconds > 0
        return reply.outputs


def test_every_library_gives_the_same_in_float32(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    widen(DEMO_FOLDER, tmp_path / "wide", Shape(512, 8, 4, 2048, 8400))
    in_batches = {"batch_type": "examples", "max_batch_size": 5, "mode": "batch"}
    found = {}
    for folder in (DEMO_FOLDER, tmp_path / "wide"):
        peer = convert_for_ctranslate2(folder, "float32", tmp_path)
        assert peer == convert_for_ctranslate2(folder, "float32", tmp_path)
        spec = Spec("peer", "ctranslate2", peer, "float32", 1)
        found[folder.name, "batch"] = outputs(spec, in_batches)
        found[folder.name, "iterable"] = outputs(spec, {**in_batches, "mode": "iterable"})
        found[folder.name, "alone"] = outputs(spec, {"alone": True})
    found["ours", "many"] = outputs(Spec("ours", "nllbd", DEMO_FOLDER, "float32", 1), {})
    found["transformers", "batches"] = outputs(
        Spec("plain", "transformers", tmp_path / "wide", "float32", 1), {"batch_size": 4}
    )
    expected = found["ours", "many"]
    assert all(output[-1] == 2 for output in expected)
    assert {name for name, them in found.items() if them != expected} == set()


def test_our_quantized_form_is_made_once(tmp_path: Path) -> None:
    folder = quantize_for_nllbd(DEMO_FOLDER, tmp_path)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert quantize_for_nllbd(DEMO_FOLDER, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_the_vocabulary_is_the_tokenizers() -> None:
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    names = vocabulary(DEMO_FOLDER)
    for code in tokenizer.languages.codes:
        assert names[tokenizer.language_id(code)] == code
    assert names[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert "".join(names[token] for token in tokenizer.encode("Hello", "eng_Latn")[1:-1]) == "▁Hello"
