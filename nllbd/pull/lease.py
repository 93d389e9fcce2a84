"""One at a time, on storage that several hosts share: a lease is a file that its holder keeps writing to.

A lease rather than a lock of the operating system, because NFS is often mounted without locks. It is taken by linking
it into place, which is atomic there too. The holder renews it every `BEAT_S`; who waits and sees no change for
`STALE_S` by a clock of its own (no two hosts need to agree on the time) takes the holder for dead and the lease over.
A holder that was only slow, or cut off, finds at its next beat that the lease is another's, and stops. On the same
host nobody waits for a process that is not there any more.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nllbd.errors import CheckpointError

BEAT_S = 5.0
STALE_S = 60.0
_POLL_S = 1.0


class LeaseLostError(CheckpointError):
    """The lease was taken over by another process."""


class Lease:
    """A lease on `path`, to be used as a context; entering waits until it is ours.

    `on_wait` is called with the holder's name about once a second while another has it. Raises CheckpointError when
    the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        on_wait: Callable[[str], None] = lambda _: None,
        *,
        beat_s: float = BEAT_S,
        stale_s: float = STALE_S,
        poll_s: float = _POLL_S,
    ) -> None:
        self._path = path
        self._on_wait = on_wait
        self._beat_s, self._stale_s, self._poll_s = beat_s, stale_s, poll_s
        self._token = secrets.token_hex(8)
        self._holder = f"process {os.getpid()} on {socket.gethostname()}"
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._beats = 0
        self._thread = threading.Thread(target=self._beat, name="nllbd-lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            raise CheckpointError(f"{self._path}: {error.strerror}") from None
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost.is_set() and _token_of(_read(self._path)) == self._token:
            self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise LeaseLostError if the lease is no longer ours."""
        if self._lost.is_set():
            raise LeaseLostError(f"{self._path}: another process took over; it goes on where this one was")

    def _acquire(self) -> None:
        seen, since = "", time.monotonic()
        while not self._take():
            content = _read(self._path)
            if content != seen:
                seen, since = content, time.monotonic()
            if _is_dead(content) or time.monotonic() - since >= self._stale_s:
                self._break(content)
                continue
            self._on_wait(_holder_of(content))
            time.sleep(self._poll_s)

    def _take(self) -> bool:
        mine = self._path.with_name(f"{self._path.name}.{self._token}")
        mine.write_text(self._content(), encoding="utf-8")
        try:
            os.link(mine, self._path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._create()
        finally:
            mine.unlink()
        return True

    def _create(self) -> bool:
        try:
            with self._path.open("x", encoding="utf-8") as stream:
                stream.write(self._content())
        except FileExistsError:
            return False
        return True

    def _break(self, stale: str) -> None:
        """Put a dead holder's lease away, but give it back if it turns out to be one that was taken meanwhile."""
        away = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            self._path.rename(away)
            if _read(away) != stale:
                with suppress(OSError):
                    os.link(away, self._path)
            away.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                if _token_of(self._path.read_text(encoding="utf-8")) != self._token:
                    self._lost.set()
                    return
                self._beats += 1
                self._renew()
            except FileNotFoundError:
                self._lost.set()
                return
            except OSError:
                continue  # storage that is away for a moment; the others see as little of us as we of them

    def _renew(self) -> None:
        mine = self._path.with_name(f"{self._path.name}.{self._token}")
        mine.write_text(self._content(), encoding="utf-8")
        mine.replace(self._path)

    def _content(self) -> str:
        who = {"holder": self._holder, "token": self._token, "pid": os.getpid(), "place": _place()}
        return json.dumps(who | {"beat": self._beats})


def _read(path: Path) -> str:
    """The file's content; empty when there is none. Opening it anew is what makes NFS look at the server."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _place() -> str:
    """Names the space of process ids that we live in: this boot of this host, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return secrets.token_hex(8)


def _is_dead(content: str) -> bool:
    """Whether the holder lived beside us and is gone."""
    pid = _field(content, "pid")
    return bool(pid) and _field(content, "place") == _place() and not Path("/proc", pid).exists()


def _token_of(content: str) -> str:
    return _field(content, "token")


def _holder_of(content: str) -> str:
    return _field(content, "holder") or "another process"


def _field(content: str, name: str) -> str:
    try:
        return str(json.loads(content)[name])
    except (ValueError, LookupError, TypeError):
        return ""
