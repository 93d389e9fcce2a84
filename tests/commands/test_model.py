from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from nllbd.checkpoint import DEMO_FOLDER
from nllbd.cli import main


@pytest.fixture
def demo_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_FOLDER, tmp_path / "models" / "someone--copy"))


def test_list(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_copy.parent / "broken").mkdir()
    (demo_copy.parent / "broken" / "config.json").write_text("{}")
    assert main(["model", "list", "--model-dir", str(demo_copy.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "demo", "broken", "someone/copy"]
    assert "unusable" in lines[2]


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^shape +d_model 256, 4 \+ 2 layers$", shown, re.MULTILINE)
    assert re.search(r"^languages +4: deu_Latn eng_Latn fra_Latn spa_Latn$", shown, re.MULTILINE)
    assert "CC-BY-NC" not in shown


def test_info_on_metas_weights_says_their_licence(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_copy / "languages.json").unlink()
    assert main(["model", "info", str(demo_copy)]) == 0
    assert "CC-BY-NC" in capsys.readouterr().out


def test_the_bundled_model_is_as_it_was_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "verify"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "ok: the SentencePiece model and the language codes fill 8203 of 8206 ids"
    assert shown[1].startswith("ok: 121 tensors")
    assert shown[-1] == "ok: as SHA256SUMS says"


def test_verify_finds_one_changed_bit(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = bytearray((demo_copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (demo_copy / "model.safetensors").write_bytes(weights)
    assert main(["model", "verify", str(demo_copy)]) == 1
    assert "changed since SHA256SUMS was written: model.safetensors" in capsys.readouterr().err


def test_verify_finds_what_is_missing(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_copy / "generation_config.json").unlink()
    assert main(["model", "verify", str(demo_copy)]) == 1
    assert "generation_config.json, which is missing" in capsys.readouterr().err


def test_verify_by_hub_id_without_checksums(demo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_copy / "SHA256SUMS").unlink()
    assert main(["model", "verify", "someone/copy", "--model-dir", str(demo_copy.parent)]) == 0
    assert "no SHA256SUMS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("sentencepiece.bpe.model", "sentencepiece.bpe.model: not a SentencePiece model"),
        ("languages.json", "languages.json: "),
        ("generation_config.json", "generation_config.json: "),
    ],
)
def test_verify_finds_a_file_cut_short(
    demo_copy: Path, capsys: pytest.CaptureFixture[str], file: str, says: str
) -> None:
    (demo_copy / "SHA256SUMS").unlink()
    content = (demo_copy / file).read_bytes()
    (demo_copy / file).write_bytes(content[: min(5000, len(content) // 2)])
    assert main(["model", "verify", str(demo_copy)]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("vocab_size", "says"), [(8000, "no room"), (256_206, "take only 8203")])
def test_verify_compares_vocabulary_and_codes(
    demo_copy: Path, capsys: pytest.CaptureFixture[str], vocab_size: int, says: str
) -> None:
    config = json.loads((demo_copy / "config.json").read_text())
    (demo_copy / "config.json").write_text(json.dumps(config | {"vocab_size": vocab_size}))
    assert main(["model", "verify", str(demo_copy)]) == 1
    shown = capsys.readouterr().err
    assert f"config.json: vocab_size {vocab_size}" in shown.replace(" is ", " ")
    assert says in shown


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "demo-int8"
    assert main(["model", "quantize", "demo", str(folder)]) == 0
    return folder


def test_a_quantized_model_verifies(quantized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "verify", str(quantized)]) == 0
    assert "no SHA256SUMS" in capsys.readouterr().out
    assert main(["model", "info", str(quantized)]) == 0
    assert re.search(r"^tensors .* M I8", capsys.readouterr().out, re.MULTILINE)


def test_a_quantized_model_translates_the_same(quantized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for model in ("demo", str(quantized)):
        texts = ["Where is the train station?", "The file was not found."]
        assert main(["translate", "--from", "en", "--to", "fr", "--model", model, *texts]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert answers[0].startswith("Où est la gare ?")


def test_quantizing_is_refused(
    quantized: Path, demo_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for source, target, says in (
        ("demo", tmp_path, f"{tmp_path} exists already"),
        ("demo", tmp_path / "file" / "new", "Not a directory"),
        (quantized, tmp_path / "new", "is quantized already"),
        ("nowhere", tmp_path / "new", "no model 'nowhere'"),
        (tmp_path, tmp_path / "new", "config.json is missing"),
    ):
        assert main(["model", "quantize", str(source), str(target)]) == 1
        shown = capsys.readouterr().err
        assert says in shown
        assert shown.count("\n") == 1
    assert not (tmp_path / "new").exists()
