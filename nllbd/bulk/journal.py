"""How far a run is, so that a killed one goes on with nothing lost and nothing doubled.

The output grows in `OUT.partial`. After each group of records it is synced, and only then does `OUT.progress` say how
much input is done and how long the output is: at any moment the two files tell a state that was true. What stands
behind that length after a crash is cut off and made again. At the end the output is renamed to OUT.

Which records stand untranslated, and why, is in `OUT.failed`, a JSON object a line; it is there only if some do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nllbd.errors import InvalidValue, NllbdError

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Progress:
    """`offset`: where the next record begins in the input; `length`: bytes of output; `failed`: records that stand
    untranslated; `failed_length`: bytes about them."""

    offset: int
    length: int
    records: int = 0
    failed: int = 0
    failed_length: int = 0


class Journal:
    """The output of one run and the record of its progress; a context that closes them.

    `run` is what must be the same for a run to be continued. Raises InvalidValue (OUT is there; another run's partial
    output is) and NllbdError (another process is at it, a file cannot be written).
    """

    def __init__(self, source: Path, out: Path, run: Mapping[str, Any], *, restart: bool = False) -> None:
        self._out = out
        self._partial = out.with_name(out.name + ".partial")
        self._state = out.with_name(out.name + ".progress")
        self._failures = out.with_name(out.name + ".failed")
        self._run = {**run, "input": _identity(source)}
        self._restart = restart
        self._stream: BinaryIO
        self._is_new = True

    def __enter__(self) -> Journal:
        if self._out.exists():
            raise InvalidValue(f"{self._out} is there already: remove it, or write elsewhere")
        self._is_new = not self._partial.exists()  # an older run's progress may have outlived its output
        self._stream = self._partial.open("ab")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.close()
            raise NllbdError(f"{self._partial}: another process is writing it") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def resume(self) -> Progress | None:
        """Where an earlier run stopped, its output cut to what is certain; None, and no output yet, for a new run."""
        progress = None if self._restart or self._is_new else self._read()
        self._stream.truncate(progress.length if progress else 0)
        self._stream.seek(0, os.SEEK_END)
        if progress is None:
            self._failures.unlink(missing_ok=True)
        elif self._failures.exists():
            os.truncate(self._failures, progress.failed_length)
        return progress

    def write(self, content: bytes) -> int:
        """Append to the output. Returns its length."""
        self._stream.write(content)
        return self._stream.tell()

    def write_failures(self, failures: Mapping[int, NllbdError]) -> int:
        """Note which records stand untranslated, by number, and why. Returns the length of these notes."""
        if not failures:
            return self._failures.stat().st_size if self._failures.exists() else 0
        with self._failures.open("ab") as stream:
            for number, error in failures.items():
                note = {"record": number, "code": error.code, "message": error.message}
                stream.write(json.dumps(note).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()

    def commit(self, progress: Progress) -> None:
        """Make certain what was written so far."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        temporary = self._state.with_name(self._state.name + ".new")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump({"run": self._run, **asdict(progress)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._state)

    def finish(self) -> None:
        """All is written: give it its name."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._partial.rename(self._out)
        self._state.unlink(missing_ok=True)

    def _read(self) -> Progress | None:
        try:
            found = json.loads(self._state.read_text(encoding="utf-8"))
            run = found.pop("run")
            progress = Progress(**found)
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InvalidValue(f"{self._state} is damaged: --restart begins anew") from None
        different = [name for name in self._run if run.get(name) != self._run[name]]
        if different:
            raise InvalidValue(
                f"{self._partial} belongs to a run with another {', '.join(different)}: --restart begins anew"
            )
        if self._stream.tell() < progress.length:
            raise InvalidValue(f"{self._partial} is shorter than it was: --restart begins anew")
        return progress


def _identity(path: Path) -> str:
    """What tells a file from another one: its length and how it begins."""
    with path.open("rb") as stream:
        head = hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()
    return f"{path.stat().st_size} {head}"
