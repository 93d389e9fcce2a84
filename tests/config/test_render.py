from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nllbd.config import ROWS, Settings, load_settings, render

README = Path(__file__).parent.parent.parent / "README.md"


def uncommented(sample: str) -> str:
    return re.sub(r"^#(?=[a-z_]+ = )", "", sample, flags=re.MULTILINE)


def test_the_sample_changes_nothing_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "nllbd.toml"
    path.write_text(render.sample())
    assert load_settings({}, {}, path) == Settings()


def test_every_line_of_the_sample_is_valid_and_shows_the_default(tmp_path: Path) -> None:
    path = tmp_path / "nllbd.toml"
    path.write_text(uncommented(render.sample()))
    assert list(tomllib.loads(path.read_text())) == [row.name for row in ROWS]
    settings = load_settings({}, {}, path)
    for row in ROWS:
        if row.example is None:
            assert getattr(settings, row.name) == row.default


def test_show_masks_and_tells_origins() -> None:
    settings = load_settings(
        {"port": "81"}, {"API_KEY": "hunter2", "REDIS_URL": "redis://:hunter2@r/0"}, Path("/dev/null")
    )
    rows = {name: (value, origin) for name, value, origin in render.shown(settings)}
    assert rows["port"] == ("81", "flag --port")
    assert rows["api_key"] == ("***", "environment API_KEY")
    assert rows["redis_url"] == ("redis://***@r/0", "environment REDIS_URL")
    assert rows["max_body_bytes"] == ("1MiB", "default")
    assert "hunter2" not in str(rows)


def test_the_readme_has_the_table_as_it_is_now() -> None:
    document = README.read_text(encoding="utf-8")
    assert render.insert_table(document) == document, "run: make docs"


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        render.insert_table("# no marks")
