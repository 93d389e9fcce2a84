"""What this process may use of the machine: cores and memory, where a container or a unit has less than the host.

A container with a quota of two cores still sees all cores of its host, and all of its memory: a thread for each core
would be throttled to a crawl, and caches sized after the host's memory would be killed. Both versions of Linux' control
groups are read; standard library and psutil only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_MOUNT = Path("/sys/fs/cgroup")
_PROC = Path("/proc/self/cgroup")


def usable_cores(mount: Path = _MOUNT, proc: Path = _PROC) -> int:
    """Cores that this process may be scheduled on, no more than its quota of processor time is worth."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _quota_cores(mount, proc))))


def available_memory(mount: Path = _MOUNT, proc: Path = _PROC) -> int:
    """Bytes that can be had without swapping: the machine's, or what is left below the group's limit."""
    return min([psutil.virtual_memory().available, *_rooms(mount, proc)])


def _quota_cores(mount: Path, proc: Path) -> float:
    quotas = [math.inf]
    for folder in _folders("", mount, proc):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdecimal():
            quotas.append(int(words[0]) / int(words[1]))
    for folder in _folders("cpu", mount, proc):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            quotas.append(quota / period)
    return min(quotas)


def _rooms(mount: Path, proc: Path) -> Iterator[int]:
    """What is left below each memory limit. Pages of files that nobody uses now count as free: they go when needed."""
    names = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
    for controller, (limit_name, usage_name) in names.items():
        for folder in _folders(controller, mount, proc):
            limit, usage = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and usage is not None:
                yield max(0, limit - usage + _reclaimable(folder))


def _reclaimable(folder: Path) -> int:
    figures = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if line.count(" ") == 1)
    return int(figures.get("total_inactive_file", figures.get("inactive_file", 0)))


def _folders(controller: str, mount: Path, proc: Path) -> Iterator[Path]:
    """Our group of a controller (version 2: the empty name) and those above it. A limit of any of them binds."""
    for line in _read(proc).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        base = mount / controller if controller else mount
        own = base / path.lstrip("/")
        # a container may see its own group as the root, under the path that only its host knows
        own = own if own.is_dir() and ".." not in own.parts else base
        while own != mount.parent and own.is_relative_to(base):
            yield own
            own = own.parent


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
