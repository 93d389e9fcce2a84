"""Every row of DEVIATIONS.md names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEVIATIONS = ROOT / "deploy/DEVIATIONS.md"
NODE = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)")
HEADINGS = ("| guide |", "|---")


def rows() -> list[str]:
    lines = DEVIATIONS.read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith(HEADINGS)]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_the_named_test_exists(row: str) -> None:
    named = NODE.findall(row.rsplit("|", 2)[1])
    assert named, "the last column names no test"
    for file, function in named:
        assert function in functions_of(ROOT / file), f"{file} has no {function}"
