"""Limits of containers and units, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from nllbd import cgroup

GIB = 1 << 30
CORES = len(os.sched_getaffinity(0))


def lay(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def proc_of(folder: Path, lines: str) -> Path:
    folder.joinpath("proc").write_text(lines)
    return folder / "proc"


def test_a_machine_without_limits(tmp_path: Path) -> None:
    assert cgroup.usable_cores(tmp_path, tmp_path / "none") == CORES
    assert abs(cgroup.available_memory(tmp_path, tmp_path / "none") - psutil.virtual_memory().available) < GIB


@pytest.mark.parametrize(("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", CORES)])
def test_a_quota_of_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    lay(tmp_path / "pod/us", cpu__max=quota)
    assert cgroup.usable_cores(tmp_path, proc_of(tmp_path, "0::/pod/us\n")) == cores


def test_a_quota_is_rounded_up_and_the_least_one_above_us_binds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    lay(tmp_path / "pod", cpu__max="250000 100000")
    lay(tmp_path / "pod/us", cpu__max="800000 100000")
    assert cgroup.usable_cores(tmp_path, proc_of(tmp_path, "0::/pod/us\n")) == 3


def test_a_quota_of_version_1_seen_from_inside_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    lay(tmp_path / "cpu", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    proc = proc_of(tmp_path, "4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n")
    assert cgroup.usable_cores(tmp_path, proc) == 4
    lay(tmp_path / "cpu", cpu__cfs_quota_us="-1")
    assert cgroup.usable_cores(tmp_path, proc) == 64


def test_memory_below_a_limit(tmp_path: Path) -> None:
    lay(
        tmp_path / "us",
        memory__max=str(GIB),
        memory__current=str(GIB // 2),
        memory__stat="anon 5\ninactive_file 4096\n",
    )
    assert cgroup.available_memory(tmp_path, proc_of(tmp_path, "0::/us\n")) == GIB // 2 + 4096
    lay(tmp_path / "us", memory__current=str(2 * GIB), memory__stat="")
    assert cgroup.available_memory(tmp_path, proc_of(tmp_path, "0::/us\n")) == 0


def test_memory_of_version_1(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": str(GIB), "memory__usage_in_bytes": "4096"}
    lay(tmp_path / "memory", **files, memory__stat="total_inactive_file 1024\n")
    proc = proc_of(tmp_path, "9:memory:/somewhere/else\n")
    assert cgroup.available_memory(tmp_path, proc) == GIB - 4096 + 1024
    lay(tmp_path / "memory", memory__limit_in_bytes="9223372036854771712")  # none is set
    assert abs(cgroup.available_memory(tmp_path, proc) - psutil.virtual_memory().available) < GIB


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    lay(tmp_path / "us", cpu__max="soon", memory__max="\xff", memory__current="x")
    assert cgroup.usable_cores(tmp_path, proc_of(tmp_path, "0::/us\n")) == CORES
