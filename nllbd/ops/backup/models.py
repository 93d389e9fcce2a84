"""What models a host has: every file with its size and checksum, and where to pull it from again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nllbd.checkpoint import DEMO_FOLDER, resolve_model
from nllbd.config import Settings
from nllbd.errors import CheckpointError
from nllbd.pull.pull import read_origin
from nllbd.weight_files import sha256

NAME = "models.json"


def describe(settings: Settings, remembered: Path) -> list[dict[str, Any]]:
    """All models in `model_dir`, and the one that is served. Checksums of files that have not changed since they were
    last read come from `remembered`, a file that is written anew. Raises OSError.
    """
    known = _known(remembered)
    now: dict[str, str] = {}
    described = [_describe(folder, known, now) for folder in _folders(settings)]
    draft = remembered.with_name(f"{remembered.name}.{os.getpid()}")
    draft.write_text(json.dumps(now), encoding="utf-8")
    draft.replace(remembered)
    return described


def differences(described: Mapping[str, Any], folder: Path) -> list[str]:
    """In what a folder is not the one that was described, in words; empty when it is."""
    found = []
    for file in described["files"]:
        path = folder / file["name"]
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            found.append(f"{path} is not the file that it was")
    return found


def _folders(settings: Settings) -> list[Path]:
    folders = set()
    if settings.model_dir is not None and settings.model_dir.is_dir():
        folders |= {it for it in settings.model_dir.iterdir() if not it.name.startswith(".") and it.is_dir()}
    try:
        folders.add(resolve_model(settings.model, settings.model_dir))
    except CheckpointError:  # the daemon would say so; a backup is made all the same
        return sorted(folders)
    return sorted(folders)


def _describe(folder: Path, known: Mapping[str, str], now: dict[str, str]) -> dict[str, Any]:
    origin = read_origin(folder)
    files = []
    for path in sorted(it for it in folder.rglob("*") if it.is_file()):
        facts = path.stat()
        mark = f"{path}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ino}"
        now[mark] = known.get(mark) or sha256(path)
        files.append({"name": path.relative_to(folder).as_posix(), "bytes": facts.st_size, "sha256": now[mark]})
    return {
        "folder": str(folder),
        "bundled": folder == DEMO_FOLDER,
        "model_id": origin.model_id if origin else None,
        "commit": origin.commit if origin else None,
        "files": files,
    }


def _known(remembered: Path) -> dict[str, str]:
    try:
        return dict(json.loads(remembered.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
