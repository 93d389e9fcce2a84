"""One backup: pieces one after the other, the manifest last, then what the policy no longer keeps goes away."""

from __future__ import annotations

import fcntl
import glob
import grp
import json
import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nllbd import __version__
from nllbd.config import Settings, load_settings
from nllbd.errors import ConfigError, NllbdError
from nllbd.ops import asking
from nllbd.ops.backup import models, postgres, redis, retention, sqlite, tree
from nllbd.ops.backup.manifest import KIND as MANIFEST
from nllbd.ops.backup.manifest import NAME as MANIFEST_NAME
from nllbd.ops.backup.manifest import Manifest, Piece
from nllbd.ops.backup.plan import PASSWORD, Plan
from nllbd.ops.backup.restic import BackupError, Restic, Stored
from nllbd.ops.textfile import Sample, write_samples

METRICS_FILE = "nllbd-backup.prom"
HELPS = {
    "nllbd_backup_last_success_timestamp_seconds": "When a part of the backup last succeeded; `manifest`: all of it.",
    "nllbd_backup_duration_seconds": "How long that part of the last backup took.",
    "nllbd_backup_size_bytes": "How large that part of the last backup was, before deduplication and compression.",
}
DATABASE = "nllbd.db"
CHECK_KEY = "check_key"
REDIS_URL = "backup_redis_url"
#: What fills itself again: without it a run is a backup, though not one that ends well.
_DISPENSABLE = frozenset(("redis", "redis-rates"))

Say = Callable[[str], None]


@dataclass(slots=True)
class _Run:
    """What a run has so far."""

    plan: Plan
    settings: Settings
    restic: Restic
    say: Say
    time: str
    pieces: list[Piece] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()


def back_up(plan: Plan, say: Say) -> Manifest:
    """Make a backup. A piece that fails does not keep the others from being stored, but the run from being one: it
    gets no manifest, and the next run removes what it left. Without a cache it is one all the same, and ends in an
    error afterwards: a Redis that is away must not cost a night's keys. Raises BackupError, ConfigError.
    """
    with locked(plan):
        restic = Restic(plan)
        restic.unlock()
        settings = read_settings(plan)
        run = _Run(plan, settings, restic, say, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"))
        steps = _steps(run)
        run.kinds = (*(kind for kind, _ in steps), MANIFEST)
        for kind, store in steps:
            _store(run, kind, store)
        _demand(run)
        manifest = _manifest(run)
        _store(run, MANIFEST, lambda: _stream(run, MANIFEST, MANIFEST_NAME, iter([manifest.to_json()])))
        _demand(run)
        if run.failures:
            restic.unlock()  # one that was stopped may have left its lock
        say(retention.apply(restic, plan.host))
        if run.failures:
            raise BackupError(f"the backup was made, but lacks {_failures(run)}")
    return manifest


def _demand(run: _Run) -> None:
    """Raise BackupError if something failed without which there is no backup."""
    if run.failures.keys() - _DISPENSABLE:
        raise BackupError(f"no backup was made: {_failures(run)}")


def _failures(run: _Run) -> str:
    return "; ".join(f"{kind}: {reason}" for kind, reason in run.failures.items())


def read_settings(plan: Plan) -> Settings:
    """The daemon's settings, as its unit reads them. Raises ConfigError."""
    config = plan.config if plan.config.exists() else None
    return load_settings(environ=plan.environ, config_file=config)


def sqlite_path(plan: Plan, settings: Settings) -> Path | None:
    """The database's file; None where it is PostgreSQL."""
    url = settings.database_url
    if url is None:
        return plan.state / DATABASE
    return Path(url.partition(":///")[2].partition("?")[0]) if url.startswith("sqlite") else None


@contextmanager
def locked(plan: Plan) -> Iterator[None]:
    """One run at a time on this host. Raises BackupError."""
    plan.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (plan.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("another backup, verification or restore is running on this host") from None
        yield


def _steps(run: _Run) -> list[tuple[str, Callable[[], Piece]]]:
    """State before database: see tree.py."""
    steps: list[tuple[str, Callable[[], Piece]]] = [
        ("files", lambda: _files(run)),
        ("state", lambda: _state(run)),
        ("database", lambda: _database(run)),
        ("models", lambda: _models(run)),
    ]
    urls = {"redis": run.settings.redis_url, "redis-rates": run.settings.rate_limit_redis_url}
    if url_of_ours := credential(run.plan.credentials, REDIS_URL):  # the daemon's own user may not copy all of a Redis
        urls = {"redis": url_of_ours}
    seen: set[str] = set()
    for kind, url in urls.items():
        if run.plan.redis and url is not None and url not in seen:
            seen.add(url)
            steps.append((kind, lambda kind=kind, url=url: _redis(run, kind, url)))  # type: ignore[misc]
    if run.plan.weights:
        steps.append(("weights", lambda: _weights(run)))
    return steps


def _store(run: _Run, kind: str, store: Callable[[], Piece]) -> None:
    """One piece, with its metrics. What goes wrong is noted."""
    began = time.monotonic()
    try:
        piece = store()
    except (NllbdError, OSError) as error:
        reason = error.message if isinstance(error, NllbdError) else f"{error.filename}: {error.strerror}"
        run.failures[kind] = reason
        run.say(f"fail  {kind:11} {reason}")
        return
    run.pieces.append(piece)
    took_s = time.monotonic() - began
    run.say(f"ok    {kind:11} {piece.num_bytes} bytes in {took_s:.1f} s")
    labels = {"kind": kind}
    values = (time.time(), took_s, piece.num_bytes)
    samples = [Sample(name, round(value, 3), labels) for name, value in zip(HELPS, values, strict=True)]
    of_this_plan = "|".join(f'kind="{it}"' for it in run.kinds)  # what is no longer backed up is not late for ever
    write_metrics(run.plan, METRICS_FILE, samples, HELPS, keep=of_this_plan)


def write_metrics(plan: Plan, name: str, samples: list[Sample], helps: dict[str, str], keep: str = "") -> None:
    """Where node_exporter reads them; nowhere if there is no such folder."""
    if plan.textfiles.is_dir():
        write_samples(plan.textfiles / name, samples, helps, keep=keep)


def _files(run: _Run) -> Piece:
    plan = run.plan
    present = sorted({Path(name) for pattern in plan.paths for name in glob.glob(pattern)})
    if not present:
        raise BackupError(f"none of {', '.join(plan.paths)} exists")
    exclude = (str(plan.password_file), str(plan.credentials / PASSWORD), *plan.exclude)
    stored = run.restic.store_files("files", run.time, present, exclude)
    return _piece("files", stored, paths=[str(path) for path in present])


def _state(run: _Run) -> Piece:
    plan, database = run.plan, sqlite_path(run.plan, run.settings)
    skip = [plan.folder, plan.state / "models"]
    skip += [run.settings.model_dir] if run.settings.model_dir else []
    if database is not None:
        skip += [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    return _stream(run, "state", "state.tar", tree.chunks_of(plan.state, skip), folder=str(plan.state))


def _database(run: _Run) -> Piece:
    path = sqlite_path(run.plan, run.settings)
    if path is not None:
        copy = sqlite.SqliteCopy(path, run.plan.folder)
        run.facts = copy.facts
        return _stream(run, "database", DATABASE, copy.chunks(), engine="sqlite", path=str(path))
    dump = postgres.PostgresDump(postgres.Server.from_url(str(run.settings.database_url)))
    piece = _stream(run, "database", "nllbd.pgdump", dump.chunks(), engine="postgresql")
    run.facts = dump.facts
    return piece


def _redis(run: _Run, kind: str, url: str) -> Piece:
    copy = redis.RedisCopy(redis.RedisServer.from_url(url))
    return _stream(run, kind, f"{kind}.rdb", copy.chunks(), **copy.details)


def _models(run: _Run) -> Piece:
    described = models.describe(run.settings, run.plan.folder / "checksums.json")
    content = json.dumps(described, indent=1).encode()
    return _stream(run, "models", models.NAME, iter([content]))


def _weights(run: _Run) -> Piece:
    folder = run.settings.model_dir
    if folder is None or not folder.is_dir():
        raise BackupError(f"weights = true, but there is no folder {folder}")
    return _piece("weights", run.restic.store_files("weights", run.time, [folder]), folder=str(folder))


def _stream(run: _Run, kind: str, name: str, chunks: Iterator[bytes], **details: Any) -> Piece:
    return _piece(kind, run.restic.store_stream(kind, run.time, name, chunks), name=name, **details)


def _piece(kind: str, stored: Stored, **details: Any) -> Piece:
    return Piece(kind, stored.snapshot, stored.num_bytes, stored.sha256, details)


def _manifest(run: _Run) -> Manifest:
    moment = datetime.strptime(run.time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    owners = {
        "users": {str(user.pw_uid): user.pw_name for user in pwd.getpwall()},
        "groups": {str(group.gr_gid): group.gr_name for group in grp.getgrall()},
    }
    return Manifest(
        host=run.plan.host,
        time=moment.isoformat(),
        version=__version__,
        model=run.settings.model,
        pieces=tuple(run.pieces),
        facts=run.facts,
        owners=owners,
        canary=_canary(run),
    )


def _canary(run: _Run) -> dict[str, Any] | None:
    """What the daemon makes of a short text now. It need not run for a backup."""
    server = asking.Server(asking.api_url(run.settings), check_key(run.plan.credentials))
    try:
        smoke = asking.smoke_translation(server)
        about = server.get("/version").json()
    except (NllbdError, LookupError, TypeError) as error:
        run.say(f"note  canary      none: {error}")
        return None
    shown = {"source": smoke.source, "target": smoke.target, "text": smoke.text, "translation": smoke.translation}
    return shown | {name: about[name] for name in ("fingerprint", "device", "dtype")}


def check_key(credentials: Path) -> str:
    """The key with which checks ask the daemon; "" if there is none."""
    return credential(credentials, CHECK_KEY)


def credential(credentials: Path, name: str) -> str:
    """A secret of systemd's, or of the folder; "" if there is none. Raises ConfigError."""
    for folder in (os.environ.get("CREDENTIALS_DIRECTORY"), str(credentials)):
        try:
            return (Path(folder or "/nonexistent") / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{name}: {error.strerror}") from None
    return ""
