"""What signals do to the daemon's process while its event loop does not handle them: before it turns, and after.

Python's defaults would end the process, by a reload that comes too early (SIGHUP) or by a second SIGTERM that comes
when all is done. At first handlers rather than SIG_IGN, which processes that we start would inherit.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_STOPPING = (signal.SIGTERM, signal.SIGINT)


def prepare() -> None:
    """From the first moment on: SIGTERM ends this process in order while it only imports, for nothing needs closing
    yet; signals that are not meant to end it do not.

    The daemon puts handlers of its own in place of these. An exception would get lost in imports that catch it.
    """
    for number in _HARMLESS:
        signal.signal(number, _ignore)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))


def hold() -> None:
    """The loop is about to be closed, which puts Python's defaults back: what comes meanwhile waits for `finish`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_HARMLESS, *_STOPPING))


def finish() -> None:
    """All is done: nothing may change any more how the process ends. Python takes handlers of its own away before the
    very end; what is ignored stays so."""
    for number in (*_HARMLESS, *_STOPPING):
        signal.signal(number, signal.SIG_IGN)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return
