"""GUIDE.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("bench/", "deploy/", "docs/", "nllbd/", "systemd/", "tests/")
NAMED = re.compile(r"`([\w./-]+)`")


def paths() -> list[str]:
    found = NAMED.findall((ROOT / "deploy/GUIDE.md").read_text("utf-8"))
    return sorted({name for name in found if name.startswith(FOLDERS)})


@pytest.mark.parametrize("name", paths())
def test_what_the_map_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()
