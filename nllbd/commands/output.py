"""What commands share in talking to a person: lines, tables, and progress on a terminal."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from nllbd.errors import NllbdError

QUIET_S = 1.0  # what is done sooner than this needs no progress
_INTERVAL_S = 0.2


class OutputError(NllbdError):
    """Standard output cannot take more. `reader_left`: it was a pipe, and its reader (head, less) has seen enough."""

    code = "output"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.reader_left = isinstance(error, BrokenPipeError)


def print_line(text: str = "") -> None:
    """One line on standard output; lone surrogates and what the terminal cannot show become escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    with _output_errors():
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def flush_output() -> None:
    """See that what was printed is out. Raises OutputError, as `print_line` does."""
    with _output_errors():
        sys.stdout.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error) from None


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be, for people and for `awk`."""
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(_width(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())


def human_bytes(count: float) -> str:
    """1536 → `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Progress:
    """One line on standard error, rewritten in place; only on a terminal, and only for what lasts over a second."""

    def __init__(self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = clock()
        self._next = self._started + QUIET_S
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.clear()

    def update(self, state: str = "") -> None:
        """Show `state` behind what is being done, at most five times a second."""
        now = self._clock()
        if now < self._next or not self._stream.isatty():
            return
        self._next = now + _INTERVAL_S
        self._shown = True
        self._stream.write(f"\r\x1b[2K{self._what} {state}({now - self._started:.0f} s)")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away, so that results and errors stand alone."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._shown = False


def _width(text: str) -> int:
    """Columns on a terminal: wide letters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
