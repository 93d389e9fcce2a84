"""What is installed and shipped: every import is declared, every dependency pinned, the wheel is complete."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]

#: Imported only where present; nllbd runs without them. (`opentelemetry` is the extra `otel`, `huggingface_hub` and its
#: `httpx2` are `hub`.)
OPTIONAL = {"asyncpg", "fasttext", "httpx2", "huggingface_hub", "opentelemetry", "pynvml", "triton", "ray"}
#: Names that many distributions share, and the one that brings what is imported of them.
NAMESPACES = {"azure": "azure-ai-translation-text", "google": "google-cloud-translate"}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]) for requirement in requirements}


def imported_from(folder: Path) -> Iterator[str]:
    """Top-level names of everything that the files under `folder` import."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0]


def distributions(folder: Path) -> set[str]:
    """The installed distributions that the files under `folder` import from."""
    outside = set(imported_from(folder)) - sys.stdlib_module_names - {"nllbd", "bench", "tests"} - OPTIONAL
    known = packages_distributions()  # what is not installed here (an extra) is taken to be called as it is imported
    return {NAMESPACES.get(name) or normal(known.get(name, [name])[0]) for name in outside}


def test_what_the_package_imports_is_what_it_declares() -> None:
    assert distributions(ROOT / "nllbd") == names(PROJECT["dependencies"])


@pytest.mark.parametrize(("folder", "extras"), [("tests", ["test"]), ("bench", ["test", "bench"])])
def test_what_tests_and_benchmarks_import_is_in_their_extra(folder: str, extras: list[str]) -> None:
    declared = names(PROJECT["dependencies"])
    for extra in extras:
        declared |= names(PROJECT["optional-dependencies"][extra])
    assert distributions(ROOT / folder) <= declared


def test_every_dependency_is_pinned() -> None:
    pinned = {normal(pin.split("==")[0]) for pin in PINS}
    wanted = names(PROJECT["dependencies"])
    for requirements in PROJECT["optional-dependencies"].values():
        wanted |= names(requirements)
    assert wanted <= pinned, f"not in constraints.txt: {sorted(wanted - pinned)}"


def test_pins_are_exact_and_name_no_build_and_no_place() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9_.-]+==(?:[0-9]+!)?[0-9][A-Za-z0-9.]*", pin)] == []
    assert "torch==2.13.0" in PINS


def test_no_package_index_is_named_anywhere() -> None:
    """Which index packages come from is the business of whoever installs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    suffixes = {".py", ".toml", ".txt", ".md", ".yml", ".yaml", ".service", ""}
    files = [ROOT / name for name in listed.stdout.split("\0") if name and Path(name).suffix in suffixes]
    pattern = re.compile(r"(?:index-url|find-links)[ =]+\S*://|pypi\.org|pythonhosted|whl/cpu", re.IGNORECASE)
    found = [file for file in files if file.is_file() and pattern.search(file.read_text("utf-8", errors="replace"))]
    assert [file for file in found if file != Path(__file__)] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in our wheel, built as a user's pip would but with the setuptools that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        "import os, sys; from setuptools.build_meta import build_wheel; "
        "os.chdir(sys.argv[1]); print(build_wheel(sys.argv[2]))"
    )
    source = folder / "source"
    source.mkdir()
    for name in ("nllbd", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        (source / name).symlink_to(ROOT / name)
    result = subprocess.run(
        [sys.executable, "-c", build, str(source), str(folder)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_has_everything_the_package_needs(wheel: list[str]) -> None:
    beside_code = {
        str(path.relative_to(ROOT))
        for folder in ("demo", "http/static")
        for path in (ROOT / "nllbd" / folder).iterdir()
        if path.is_file()
    }
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "nllbd").rglob("*.py")}
    assert beside_code | code | {"nllbd/py.typed"} <= set(wheel)
    assert not [name for name in wheel if name.startswith(("tests", "bench"))]
    assert {Path(name).name for name in wheel} >= {"LICENSE", "NOTICE", "entry_points.txt"}


def test_the_bundled_model_stays_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "nllbd" / "demo").iterdir()) < 25 * 1024 * 1024


@pytest.mark.parametrize("name", [".ci/run", "deploy/venv"])
def test_scripts_can_be_run(name: str) -> None:
    script = ROOT / name
    assert script.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def venv_script(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """deploy/venv for an environment below `tmp_path`; whatever it starts to install must fail before it begins."""
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VENV": str(tmp_path / "venv"), **environ}
    return subprocess.run([ROOT / "deploy" / "venv", "run"], env=given, capture_output=True, text=True, check=False)


def fake_python(tmp_path: Path, body: str) -> str:
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_environment_without_python(tmp_path: Path) -> None:
    result = venv_script(tmp_path, PYTHON="python3.99")
    assert result.returncode == 1
    assert "there is no python3.99: install Python 3.11 or newer" in result.stderr


def test_environment_with_an_old_python(tmp_path: Path) -> None:
    old = fake_python(tmp_path, '[ "$1" = -V ] && echo Python 3.9.2; exit 1')
    result = venv_script(tmp_path, PYTHON=old)
    assert result.returncode == 1
    assert "Python 3.9.2 is too old, nllbd needs 3.11" in result.stderr


def test_environment_without_the_venv_module(tmp_path: Path) -> None:
    bare = fake_python(tmp_path, '[[ "$*" != *ensurepip* ]]')
    result = venv_script(tmp_path, PYTHON=bare)
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr


def test_environment_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "precious").touch()
    result = venv_script(tmp_path)
    assert (result.returncode, "move it away" in result.stderr) == (1, True)
    assert (tmp_path / "venv" / "precious").exists()


def test_environment_with_a_torch_that_is_none(tmp_path: Path) -> None:
    result = venv_script(tmp_path, TORCH="rocm")
    assert result.returncode == 1
    assert "TORCH=rocm: give cpu, cuda or system" in result.stderr


def test_environment_that_is_as_it_should_be_takes_no_time(tmp_path: Path) -> None:
    """A complete one is recognized by its stamp; nothing is installed, and nothing said."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    Path(fake_python(tmp_path, '[ "$1" = -c ]')).rename(tmp_path / "venv" / "bin" / "python")
    (tmp_path / "venv" / ".torch").write_text("any\n")
    stamp = 'torch=any; eval "$(grep ^stamp deploy/venv)"; stamp run'
    (tmp_path / "venv" / ".made").write_text(subprocess.check_output(["bash", "-c", stamp], text=True, cwd=ROOT))
    result = venv_script(tmp_path)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    (tmp_path / "venv" / ".made").write_text("run any 0000  -\n")
    assert venv_script(tmp_path).returncode != 0, "another stamp, and nothing was done"
