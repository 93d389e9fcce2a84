"""One life of the engine process: how its end is told apart, and that loading is neither frozen nor endless."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nllbd.bridge.child import Child, Limits, Listener, _is_stopped, _read_status
from nllbd.bridge.pace import Pace
from nllbd.bridge.probation import Cause


def make(kit: Any, limits: Limits) -> Child:
    listener = Listener(lambda info: None, lambda report: None, lambda: None)
    return Child(kit.config(), limits, listener, Pace(limits.step_s, limits.step_floor_s))


@pytest.mark.parametrize(
    ("status", "cause", "words"),
    [
        (1, Cause.FAULT, "status 1"),
        (-signal.SIGSEGV, Cause.FAULT, "Segmentation"),
        (-signal.SIGABRT, Cause.FAULT, "signal 6"),
        (-signal.SIGKILL, Cause.OUTSIDE, "Killed"),
        (-(signal.SIGRTMIN + 5), Cause.FAULT, "signal"),
        (None, Cause.FAULT, "lived on"),
    ],
)
def test_what_an_exit_status_says(status: int | None, cause: Cause, words: str) -> None:
    death = _read_status(status)
    assert death.cause is cause
    assert words in death.message


def test_the_kernel_knows_who_is_stopped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not _is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert _is_stopped(process.pid)
        process.kill()
    assert not _is_stopped(process.pid)


@pytest.fixture
def endless_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine process reads its first message and then loads for ever, its heartbeat included."""
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(3600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("endless_loading")
async def test_silent_loading_is_let_be_until_its_own_limit(kit: Any) -> None:
    child = make(kit, Limits(heartbeat_s=0.02, stopped_s=0.05, silent_s=0.05, load_s=0.5))
    death = await asyncio.wait_for(child.live(), 30)
    assert (death.cause, death.message) == (Cause.FAULT, "not ready after 0.5 s")


@pytest.mark.usefixtures("endless_loading")
async def test_a_freeze_while_loading_is_noticed(kit: Any) -> None:
    child = make(kit, Limits(heartbeat_s=0.02, stopped_s=0.1))
    life = asyncio.create_task(child.live())
    await kit.until(lambda: hasattr(child, "_process"))
    os.kill(child.pid, signal.SIGSTOP)
    death = await asyncio.wait_for(life, 30)
    assert death.cause is Cause.OUTSIDE
    assert "stopped" in death.message


async def test_cancelling_a_life_ends_the_process(kit: Any) -> None:
    child = make(kit, Limits())
    life = asyncio.create_task(child.live())
    await kit.until(lambda: child.is_ready)
    life.cancel()
    await asyncio.wait((life,))
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_a_late_parent_is_not_held_against_the_child(kit: Any) -> None:
    """The loop stalls for far longer than the child may be silent: nobody is condemned for it."""
    child = make(kit, Limits(heartbeat_s=0.02, stopped_s=60, silent_s=0.3))
    life = asyncio.create_task(child.live())
    await kit.until(lambda: child.is_ready)
    for _ in range(3):
        time.sleep(0.6)  # noqa: ASYNC251 - the stall is the point
        await asyncio.sleep(0.1)
    assert not life.done()
    life.cancel()
    await asyncio.wait((life,))
