"""Commands of bench/ as a user starts them: real processes, results in a folder of the test."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

Command = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands keep each library's form of a model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run_bench(tmp_path: Path) -> Command:
    """Run `python -m bench.<name> <arguments>`; returns the one record it wrote, and checks what each must have."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", *map(str, arguments), "--results", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (file,) = tmp_path.glob("*.json")
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        assert record["hardware"]["cores"] >= 1
        assert record["versions"]["python"]
        assert record["revision"]["commit"]
        assert record["options"]
        return record

    return run
