"""The benchmark of credentials and limits runs and tells every case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_case_has_its_figure() -> None:
    command = [sys.executable, "-m", "bench.micro_security", "--repeats", "5"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100).stdout
    assert len([line for line in told.splitlines() if line.endswith(" µs")]) == 6
