"""restic as a handful of calls. Its password and S3 keys are files that it reads itself: no command line, no
environment and no log has them. Streams go in by standard input, so nothing lies on disk unencrypted on its way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from nllbd.errors import ConfigError, NllbdError
from nllbd.ops.backup.plan import Plan

TAG = "nllbd"
_CHUNK = 1 << 20
_STOP_S = 20.0


class BackupError(NllbdError):
    """A backup, a verification or a restore did not do what it should."""

    code = "backup"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One piece of one run. All pieces of a run have the same `time`."""

    id: str
    kind: str
    time: datetime
    host: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece that was just written. `sha256` is the stream's; "" for files, which restic hashes itself."""

    snapshot: str
    num_bytes: int
    sha256: str = ""


class Restic:
    """One repository, for one host."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        program = shutil.which("restic")
        if program is None:
            raise ConfigError("restic is not installed: apt-get install restic")
        if not plan.password_file.is_file():
            raise ConfigError(f"{plan.password_file}: no such file; it holds the password of the backups")
        self._program = program

    def init(self) -> None:
        """Make the repository. Raises BackupError if it exists."""
        self._run("init")

    def unlock(self) -> None:
        """Take away locks that dead processes left; those of living ones stay."""
        self._run("unlock")

    def snapshots(self) -> list[Snapshot]:
        """Those of this host that nllbd made, the oldest first."""
        found = json.loads(self._run("snapshots", "--json", "--tag", TAG, "--host", self._plan.host)) or []
        return sorted(map(_snapshot, found), key=lambda snapshot: snapshot.time)

    def store_files(self, kind: str, time: str, paths: Sequence[Path], exclude: Sequence[str] = ()) -> Stored:
        """Files as they are, with owners and modes. Raises BackupError also when some could not be read."""
        excluded = [word for pattern in exclude for word in ("--exclude", pattern)]
        output = self._run("backup", "--json", *self._marks(kind, time), *excluded, "--", *map(str, paths))
        summary = _summary(output)
        return Stored(summary["snapshot_id"], int(summary["total_bytes_processed"]))

    def store_stream(self, kind: str, time: str, name: str, chunks: Iterable[bytes]) -> Stored:
        """One file made of `chunks`. When they end in an error, restic is stopped before it sees the stream's end: a
        stream that was cut leaves no snapshot. Raises BackupError and what `chunks` raises.
        """
        arguments = ("backup", "--json", *self._marks(kind, time), "--stdin", "--stdin-filename", name)
        digest, num_bytes = hashlib.sha256(), 0
        with self._started(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for chunk in chunks:
                    process.stdin.write(chunk)
                    digest.update(chunk)
                    num_bytes += len(chunk)
                process.stdin.flush()
            except BrokenPipeError:
                raise BackupError(f"restic ended early: {_end_of(process)}") from None
            except BaseException:
                _stop(process)
                raise
            process.stdin.close()
            output = process.stdout.read().decode()
            if process.wait() != 0:
                raise BackupError(f"restic backup of {name}: {_end_of(process)}")
        return Stored(_summary(output)["snapshot_id"], num_bytes, digest.hexdigest())

    def read_stream(self, snapshot: str, name: str) -> Iterator[bytes]:
        """A stream as it was stored. Raises BackupError, at the end too."""
        with self._started(("dump", snapshot, f"/{name}"), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                while chunk := process.stdout.read(_CHUNK):
                    yield chunk
                if process.wait() != 0:
                    raise BackupError(f"restic dump of {name}: {_end_of(process)}")
            finally:
                _stop(process)

    def restore_files(self, snapshot: str, target: Path, include: Sequence[str] = ()) -> None:
        included = [word for pattern in include for word in ("--include", pattern)]
        self._run("restore", snapshot, "--target", str(target), *included)

    def check(self, percent: int = 0) -> None:
        """The repository's structure, and of its data a random `percent`. Raises BackupError."""
        self._run("check", *(("--read-data-subset", f"{percent}%") if percent else ()))

    def judged(self) -> list[tuple[Snapshot, bool]]:
        """This host's snapshots, and which of them the policy would keep, each kind by itself; none is forgotten."""
        marks = ("--tag", TAG, "--host", self._plan.host, "--group-by", "host,tags")
        groups = json.loads(self._run("forget", "--dry-run", "--json", *marks, *self._plan.keep.arguments)) or []
        kept = [(_snapshot(it), True) for group in groups for it in group["keep"] or []]
        return kept + [(_snapshot(it), False) for group in groups for it in group["remove"] or []]

    def forget(self, ids: Sequence[str]) -> None:
        """Forget these, and remove what no snapshot needs any more."""
        self._run("forget", "--prune", *ids)

    def _marks(self, kind: str, time: str) -> tuple[str, ...]:
        return ("--tag", f"{TAG},{kind}", "--host", self._plan.host, "--time", time)

    def _run(self, *arguments: str) -> str:
        with self._started(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            output = process.stdout.read().decode("utf-8", "replace")
            if process.wait() != 0:
                raise BackupError(f"restic {arguments[0]}: {_end_of(process)}")
        return output

    @contextmanager
    def _started(self, arguments: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A running restic, its complaints in `process.stderr`; stopped when the block ends early."""
        plan = self._plan
        cache = plan.folder / "cache"
        command = [self._program, "--cache-dir", str(cache)]
        if plan.cacert is not None:
            command += ["--cacert", str(plan.cacert)]
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK") if name in os.environ}
        environ |= {"TZ": "UTC", "RESTIC_REPOSITORY": plan.repository, "RESTIC_PASSWORD_FILE": str(plan.password_file)}
        if plan.s3_credentials_file is not None:
            environ["AWS_SHARED_CREDENTIALS_FILE"] = str(plan.s3_credentials_file)
        with _scratch_file() as complaints:
            process = subprocess.Popen(
                [*command, *arguments], env=environ, stderr=complaints, **{"stdin": subprocess.DEVNULL, **streams}
            )
            process.stderr = complaints
            try:
                yield process
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, at which restic takes its lock away and saves nothing; then whatever ends it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what was still to be written has no reader any more
                continue


@contextmanager
def _scratch_file() -> Iterator[IO[bytes]]:
    """A file without a name, in memory."""
    with os.fdopen(os.memfd_create("restic"), "w+b") as file:
        yield file


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """The last words of a process that failed."""
    code = process.wait()
    assert process.stderr is not None
    process.stderr.seek(0)
    lines = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
    return "; ".join(line.strip() for line in lines[-3:]) or f"ended with {code}"


def _snapshot(table: Mapping[str, Any]) -> Snapshot:
    kind = next((tag for tag in table["tags"] if tag != TAG), "")
    return Snapshot(table["id"], kind, datetime.fromisoformat(_microseconds(table["time"])), table["hostname"])


def _summary(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        if '"summary"' in line:
            return dict(json.loads(line))
    raise BackupError("restic did not say what it stored")


def _microseconds(moment: str) -> str:
    """restic writes nanoseconds; Python reads six digits."""
    head, dot, tail = moment.partition(".")
    if not dot:
        return moment
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return f"{head}.{digits[:6]:0<6}{tail[len(digits) :]}"
