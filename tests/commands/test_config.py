from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from nllbd.cli import main
from nllbd.config import ROWS, sources


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "DEFAULT_FILE", tmp_path / "absent.toml")


def test_show_tells_value_and_origin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", "hunter2")
    assert main(["config", "show", "--port", "81", "--enable-web", "--allow-anonymous", "no"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["port"] == ["81", "flag", "--port"]
    assert rows["api_key"] == ["***", "environment", "API_KEY"]
    assert rows["enable_web"][0] == "true"
    assert rows["allow_anonymous"][0] == "false"
    assert rows["host"] == ["127.0.0.1", "default"]


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {row.name for row in ROWS}


def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_ENV", "production")
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "note: NODE_ENV is set; nllbd has no such mode and ignores it",
        "ok: the settings are valid, model demo is there",
    ]


def test_check_wants_the_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--model", "/nowhere"]) == 1
    assert "/nowhere" in capsys.readouterr().err


def test_sample_is_toml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "sample"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {}


def test_sample_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "sample", "--markdown"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS) + 2


def test_openapi_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "openapi"]) == 0
    assert "/translate" in json.loads(capsys.readouterr().out)["paths"]


def test_secrets_are_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert "--api-key-file" in shown
    assert "--api-key " not in shown
    assert "--jwt-secret " not in shown
