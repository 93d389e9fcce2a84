"""The fingerprint of our own code: any change to what makes a translation changes it, nothing else does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nllbd
from nllbd.cache.code import code_fingerprint


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("copy") / "nllbd"
    ignored = shutil.ignore_patterns("*.safetensors", "__pycache__", "*.so", "demo", "static")
    shutil.copytree(Path(nllbd.__file__).parent, copy, ignore=ignored)
    return copy


def test_a_copy_of_the_code_has_the_same(package: Path) -> None:
    assert code_fingerprint(package) == code_fingerprint(package)
    assert code_fingerprint(package) == code_fingerprint()


@pytest.mark.parametrize(
    "file",
    [
        "text/tokenizer.py",
        "text/guard.py",
        "text/segment.py",
        "segments.py",
        "model/quantize.py",
        "kernels/native/body.inc",
        "kernels/paged.py",
        "engine/search.py",
        "sched/scheduler.py",
    ],
)
def test_it_changes_with(package: Path, file: str) -> None:
    before = code_fingerprint(package)
    content = (package / file).read_bytes()
    (package / file).write_bytes(content + b"\n# changed\n")
    try:
        assert code_fingerprint(package) != before
    finally:
        (package / file).write_bytes(content)


def test_it_does_not_change_with_the_web_page(package: Path) -> None:
    before = code_fingerprint(package)
    (package / "http" / "pages.py").write_bytes(b"\n")
    assert code_fingerprint(package) == before
