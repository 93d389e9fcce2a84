"""What the tests of `systemd/` and `deploy/` need of the machine. Without it they are skipped by name."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

#: The checkout that these tests are of.
CHECKOUT = Path(__file__).parents[3]

_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/postgresql/*/bin", "/usr/lib/systemd")
_T = TypeVar("_T")


def find(name: str) -> Path | None:
    """A program of this environment, on PATH, or where Debian keeps those not for everybody; the newest of several."""
    environment = os.path.dirname(sys.executable)
    folders = [folder for place in _PLACES for folder in sorted(glob.glob(place), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([environment, os.environ.get("PATH", os.defpath), *folders]))
    return Path(found) if found else None


def need(*names: str) -> dict[str, Path]:
    """Where each of these programs is; skips the test and names those that are missing."""
    found = {name: find(name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    return {name: path for name, path in found.items() if path is not None}


def need_root() -> None:
    """Skips the test for whoever may not make namespaces."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def eventually(condition: Callable[[], _T], timeout_s: float = 30.0, what: str = "the condition") -> _T:
    """What `condition` returns once that is true in the sense of `bool`; fails the test after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < end, f"{what} did not come true within {timeout_s} s"
        time.sleep(0.05)
    return result
