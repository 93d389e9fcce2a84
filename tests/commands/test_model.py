from __future__ import annotations

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
    assert shown[0].startswith("ok: 121 tensors")
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
