from __future__ import annotations

import pytest

from nllbd.cli import main


def test_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["CODE", "deu_Latn", "eng_Latn", "fra_Latn", "spa_Latn"]
    assert lines[1].split() == ["deu_Latn", "de", "German", "Deutsch", "yes"]


def test_all_of_nllb_200(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 202
    assert any(line.startswith("zho_Hant") and line.endswith("yes") for line in lines)
    assert any(line.endswith("no") for line in lines)
