"""Which cores a process runs on, and how much of them it used. Linux."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil


def cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def pin(pid: int, where: Collection[int]) -> None:
    """Keep all threads of a process on these cores; what it starts later inherits that."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), where)


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used, user and system, without its children."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def children_cpu_s(pid: int) -> float:
    """The same of its living children."""
    return sum(cpu_s(child.pid) for child in psutil.Process(pid).children(recursive=True))
