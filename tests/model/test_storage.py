"""Storage that may go away: how it is known, and that nothing of a model is left there once it is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.model import weights
from nllbd.model.nllb import NllbModel
from nllbd.model.storage import is_shared


def mounts_of(folder: Path, kind: str) -> Path:
    """A table of mounts in which `folder` is on a file system of that kind."""
    device = folder.stat().st_dev
    file = folder / "mountinfo"
    file.write_text(
        "22 1 0:999 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        f"36 22 {os.major(device)}:{os.minor(device)} / /a\\040b rw,noatime shared:2 master:1 - {kind} server:/x rw\n"
    )
    return file


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", True),
        ("nfs", True),
        ("fuse.glusterfs", True),
        ("fuse", True),
        ("ceph", True),
        ("ext4", False),
        ("xfs", False),
        ("tmpfs", False),
        ("overlay", False),
        ("fuseblk", False),
    ],
)
def test_what_is_shared(tmp_path: Path, kind: str, expected: bool) -> None:
    assert is_shared(tmp_path, mounts_of(tmp_path, kind)) is expected


def test_what_nobody_knows_is_not(tmp_path: Path) -> None:
    assert not is_shared(tmp_path, tmp_path / "no-proc")
    assert not is_shared(tmp_path / "gone")
    (tmp_path / "odd").write_text("\n-\n36 22\n")
    assert not is_shared(tmp_path, tmp_path / "odd")


def mapped() -> int:
    """Mappings of the demonstration model's weights in this process."""
    return Path("/proc/self/maps").read_text().count(str(DEMO_FOLDER / "model.safetensors"))


@pytest.mark.parametrize("precision", ["int8", "float32", "bfloat16"])
def test_nothing_is_left_on_shared_storage(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(weights, "is_shared", lambda _: True)
    before = mapped()
    model = NllbModel(read_checkpoint(DEMO_FOLDER), precision, torch.device("cpu"))
    assert mapped() == before
    assert model.embedding.numel()
