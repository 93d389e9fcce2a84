"""The fingerprint of everything in this installation that has a say in a translation, the model's files aside.

Taken from the sources themselves, so that no change to tokenizer, guards, quantization or search is ever forgotten:
after an update answers of the old code are not found any more.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
#: What turns a segment's text into its answer. Not `document`: how a text is cut decides which segments are asked for,
#: not what becomes of them.
_PARTS = ("text", "sched", "engine", "model", "kernels", "segments.py", "languages.py", "language_table.py")
_SOURCES = {".py", ".cpp", ".inc"}
_LIBRARIES = ("sentencepiece", "torch")


def code_fingerprint(package: Path = _PACKAGE) -> str:
    """Reads some sixty small files: once a start, off the event loop."""
    digest = hashlib.sha256()
    for file in _source_files(package):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package)}\0{len(content)}\0".encode() + content)
    for library in _LIBRARIES:
        digest.update(f"{library}\0{_version(library)}\0".encode())
    digest.update(repr(sys.version_info[:2]).encode())  # letters and scripts are those of Python's Unicode tables
    return digest.hexdigest()[:16]


def _source_files(package: Path) -> Iterator[Path]:
    for part in _PARTS:
        path = package / part
        found = path.rglob("*") if path.is_dir() else [path]
        yield from sorted(file for file in found if file.suffix in _SOURCES)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
