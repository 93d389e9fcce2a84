"""The thread that writes log lines. Whoever logs never waits for whoever reads, and neither does the process's end.

The stream's file is written to directly: Python's buffered streams are locked while they write, and a process whose
log reader has stalled would wait for that lock, or die of it, when it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_MAX_QUEUED = 10_000
_GATHER_S = 0.02  # how long a line waits for company: what a kill may lose, and what spares a switch of threads a line
#: How long the end waits for a reader that takes something now and then, and how long for one that takes nothing.
CLOSE_S = 5.0
STALLED_S = 1.0
#: Signals that other threads answer to.
_NOT_OURS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_PIECE = 4096  # small, so that a slow reader's progress is seen

Line = bytes | str


class LogWriter:
    """Writes lines to a stream, in order. `put` never blocks: what does not fit in memory is dropped, and counted.

    `tell` makes the line that says how many were dropped, once lines are taken again.
    """

    def __init__(self, stream: TextIO, tell: Callable[[int], Line]) -> None:
        self._stream = stream
        self._file = _file_of(stream)
        self._tell = tell
        self._lines: deque[Line] = deque()
        self._has_lines = threading.Event()
        self._closing = threading.Event()
        self._counting = threading.Lock()
        self._num_untold = 0
        self._moved_at = time.monotonic()
        self.num_dropped = 0
        self._thread = threading.Thread(target=self._run, name="nllbd-log", daemon=True)
        mask = signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # inherited: signals are not its business
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def put(self, line: Line) -> None:
        if len(self._lines) < _MAX_QUEUED:
            self._lines.append(line)
        else:
            self._drop(1)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Returns when all is written, or when nobody reads."""
        self._closing.set()
        self._has_lines.set()
        ends_at = time.monotonic() + CLOSE_S
        self._moved_at = time.monotonic()
        while self._thread.is_alive():
            now = time.monotonic()
            patience_s = min(ends_at, self._moved_at + STALLED_S) - now
            if patience_s <= 0:
                return
            self._thread.join(patience_s)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._has_lines.wait()
            is_last = self._closing.wait(_GATHER_S)
            self._has_lines.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if num_untold := self._take_untold():
                lines.append(self._tell(num_untold))
            self._write(lines)
        if self._file is not None:
            os.close(self._file)

    def _write(self, lines: list[Line]) -> None:
        texts = [line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace") for line in lines]
        content = b"".join(text + b"\n" for text in texts)
        try:
            if self._file is None:
                self._stream.write(content.decode())
                self._stream.flush()
            else:
                self._write_file(self._file, content)
        except (OSError, ValueError):  # nobody reads us any more; who serves translations does not end for that
            self._drop(len(lines))

    def _write_file(self, file: int, content: bytes) -> None:
        """Whole lines at once, as far as they are no longer than a piece: others may write to the same pipe."""
        start = 0
        while start < len(content):
            end = content.rfind(b"\n", start, start + _PIECE) + 1 or start + _PIECE
            try:
                start += os.write(file, content[start:end])
            except BlockingIOError:  # somebody made the file that we share a non-blocking one
                select.select((), (file,), ())
                continue
            self._moved_at = time.monotonic()

    def _drop(self, count: int) -> None:
        with self._counting:
            self.num_dropped += count
            self._num_untold += count

    def _take_untold(self) -> int:
        with self._counting:
            taken, self._num_untold = self._num_untold, 0
        return taken


def _file_of(stream: TextIO) -> int | None:
    """A descriptor of our own of the stream's file, whose buffer is empty then; None for what is no file."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()
        return os.dup(stream.fileno())
    return None
