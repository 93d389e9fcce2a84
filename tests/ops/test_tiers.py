"""The heavy tier's own machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ops.kit.programs import CHECKOUT

_TESTS = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(4))
def test_who(number):
    with open(os.environ["RAN"], "a") as ran:
        ran.write(f"{pathlib.Path(__file__).parent.name} {number} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_a_folder_is_one_workers_in_order(tmp_path: Path) -> None:
    """What a test leaves (a standby that is the primary now) is what the next one of its file starts from."""
    for folder in ("one", "two"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / "test_it.py").write_text(_TESTS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "tests.ops.conftest", "--rootdir", str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT), "RAN": str(tmp_path / "ran")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-c", "/dev/null", "--import-mode=importlib", str(tmp_path / "tests")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in (tmp_path / "ran").read_text("utf-8").splitlines()]
    for folder in ("one", "two"):
        assert [number for name, number, _ in rows if name == folder] == ["0", "1", "2", "3"]
    assert len({(folder, worker) for folder, _, worker in rows}) == 2
    assert len({worker for _, _, worker in rows}) == 2, "both work"
