"""From a backup to a host that serves again: files, state, database, Redis, models, in this order, the services last.

Nothing that is there is overwritten unless that was asked for, and never under a daemon that runs.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nllbd.config import load_settings
from nllbd.errors import ConfigError, NllbdError, NotReady
from nllbd.ops import asking
from nllbd.ops.backup import facts, models, place, postgres, redis, sqlite, tree
from nllbd.ops.backup.manifest import Manifest, Piece
from nllbd.ops.backup.plan import Plan
from nllbd.ops.backup.restic import BackupError, Restic
from nllbd.ops.backup.run import DATABASE, Say, check_key, locked, read_settings, sqlite_path
from nllbd.ops.backup.verify import checked, compare_canary, newest, remove_leftovers, scratch
from nllbd.ops.trial import give_to_service

KINDS = ("files", "state", "database", "redis", "models", "weights")
_READY_S = 300.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be restored, and how. `root`: everything below it instead of into the running system.

    `replace`: what is there may go. `redis_folder`: where the Redis of this host, which does not run, has its files.
    """

    kinds: Collection[str] = KINDS
    root: Path = Path("/")
    run: str = ""
    replace: bool = False
    dry_run: bool = False
    start: bool = True
    redis_folder: Path | None = Path("/var/lib/redis")


@dataclass(slots=True)
class _Restore:
    plan: Plan
    wishes: Wishes
    restic: Restic
    manifest: Manifest
    say: Say
    times: dict[str, float] = field(default_factory=dict)

    def inside(self, path: Path | str) -> Path:
        return self.wishes.root / str(path).lstrip("/")

    @property
    def is_here(self) -> bool:
        """Whether this host itself is restored, not a folder."""
        return self.wishes.root == Path("/")


def restore(plan: Plan, wishes: Wishes, say: Say) -> dict[str, float]:
    """Restore; how long each step took, in seconds. Raises BackupError, ConfigError, NotReady."""
    with locked(plan):
        restic = Restic(plan)
        restic.unlock()
        remove_leftovers(plan)
        manifest = newest(restic, wishes.run)
        work = _Restore(plan, wishes, restic, manifest, say)
        say(f"      backup      of {manifest.host}, {manifest.time}, nllbd {manifest.version}, model {manifest.model}")
        _check_target(work)
        steps = _steps(work)
        if wishes.dry_run:
            for kind, _ in steps:
                say(f"would restore     {kind}")
            return {}
        for kind, step in steps:
            began = time.monotonic()
            step()
            work.times[kind] = round(time.monotonic() - began, 2)
    if "database" in work.times:
        say(f"note  keys        keys that were revoked after {manifest.time} are good again: revoke them once more")
    return work.times


def _steps(work: _Restore) -> list[tuple[str, Callable[[], None]]]:
    pieces = {piece.kind: piece for piece in work.manifest.pieces}
    wanted = work.wishes.kinds
    known: dict[str, Callable[[Piece], None]] = {
        "files": lambda piece: _files(work, piece),
        "state": lambda piece: _state(work, piece),
        "database": lambda piece: _database(work, piece),
        "redis": lambda piece: _redis(work, piece),
        "weights": lambda piece: _weights(work, piece),
        "models": lambda piece: _models(work, piece),
    }
    steps: list[tuple[str, Callable[[], None]]] = [
        (kind, lambda act=act, kind=kind: act(pieces[kind]))  # type: ignore[misc]
        for kind, act in known.items()
        if kind in wanted and kind in pieces
    ]
    if work.wishes.start and work.is_here and _has_systemd():
        steps += [("start", lambda: _start(work)), ("translate", lambda: _translate(work))]
    return steps


def _check_target(work: _Restore) -> None:
    """Raise BackupError before anything is touched, if it must not be."""
    state = work.inside(work.plan.state)
    if holders := _running_daemons(state / "usage"):
        raise BackupError(f"a daemon uses {state} ({holders} running): stop it first (systemctl stop nllbd.target)")
    if work.wishes.replace:
        return
    database = state / DATABASE
    piece = work.manifest.piece("database")
    if "database" in work.wishes.kinds and piece and piece.details["engine"] == "sqlite" and database.exists():
        raise BackupError(f"{database} exists: --replace puts the backup in its place and keeps it beside")


def _running_daemons(journal: Path) -> int:
    """How many daemons hold a part of the usage journal."""
    held = 0
    for lock in journal.glob("*/lock"):
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held += 1
    return held


def _files(work: _Restore, piece: Piece) -> None:
    _put_files(work, piece, piece.details["paths"])
    work.say(f"ok    files       {', '.join(piece.details['paths'])}")
    if work.is_here and _has_systemd():
        subprocess.run(["systemctl", "daemon-reload"], check=False)


def _put_files(work: _Restore, piece: Piece, tops: Sequence[str]) -> None:
    """By way of a folder of our own: restic does not replace links that are there."""
    with scratch(work.plan) as folder:
        work.restic.restore_files(piece.snapshot, folder)
        place.put(folder, work.wishes.root, place.Owners.here(work.manifest.owners), tops)


def _state(work: _Restore, piece: Piece) -> None:
    folder = work.inside(work.plan.state)
    is_new = not folder.exists()
    tree.put(checked(work.restic, piece), folder)
    if is_new:
        give_to_service([folder])
    work.say(f"ok    state       {folder}")


def _database(work: _Restore, piece: Piece) -> None:
    if piece.details["engine"] == "sqlite":
        path = work.inside(piece.details["path"])
        if path.exists():
            kept = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
            sqlite.set_aside(path, kept)
            work.say(f"note  database    the one that was here is {kept}")
        sqlite.put(checked(work.restic, piece), path)
        found = sqlite.check(path)
    else:
        found = _postgres(work, piece)
    if wrong := facts.differences(dict(work.manifest.facts), found):
        raise BackupError(f"the restored database differs: {'; '.join(wrong)}")
    work.say(f"ok    database    {found['keys']} keys, {found['usage_characters']} characters of usage")


def _postgres(work: _Restore, piece: Piece) -> dict[str, Any]:
    """Into the server that the (just restored) settings name; it has to be there, and its database empty."""
    settings = _restored_settings(work)
    if settings.database_url is None or sqlite_path(work.plan, settings) is not None:
        raise ConfigError("the backup is of PostgreSQL, but database_url in the settings here names none")
    server = postgres.Server.from_url(settings.database_url)
    if postgres.num_tables(server) and not work.wishes.replace:
        raise BackupError("the PostgreSQL database has tables: --replace drops those that the backup has")
    postgres.put(checked(work.restic, piece), server, replace=work.wishes.replace)
    return postgres.facts_of(server)


def _restored_settings(work: _Restore) -> Any:
    config, credentials = work.inside(work.plan.config), work.inside(work.plan.credentials)
    environ = work.plan.environ | {"CREDENTIALS_DIRECTORY": str(credentials)}
    return load_settings(environ=environ, config_file=config if config.exists() else None)


def _redis(work: _Restore, piece: Piece) -> None:
    folder = work.wishes.redis_folder
    if folder is None or not work.inside(folder).parent.is_dir():
        work.say("note  redis       not restored: a cache fills itself again; --redis-folder says where it belongs")
        return
    folder = work.inside(folder)
    for unit in ("redis-server.service", "redis-server@cache.service"):
        if work.is_here and _is_active(unit):
            raise BackupError(f"{unit} is running and would overwrite what is restored: stop it first")
    name = str(piece.details.get("dbfilename", redis.DUMP))
    redis.put(checked(work.restic, piece), folder, appendonly=bool(piece.details["appendonly"]), dbfilename=name)
    work.say(f"ok    redis       {folder}" + (", as the base of its append-only file" * piece.details["appendonly"]))


def _weights(work: _Restore, piece: Piece) -> None:
    _put_files(work, piece, [piece.details["folder"]])
    work.say(f"ok    weights     {piece.details['folder']}")


def _models(work: _Restore, piece: Piece) -> None:
    """Say which models are missing or are not what they were; they are pulled, not restored, unless `weights`."""
    for model in json.loads(b"".join(checked(work.restic, piece))):
        folder = Path(model["folder"]) if model["bundled"] else work.inside(model["folder"])
        if model["bundled"]:
            continue
        if not folder.is_dir():
            how = f"nllbd model pull {model['model_id']}" if model["model_id"] else f"copy it to {folder}"
            work.say(f"todo  models      {folder} is missing: {how}")
        elif wrong := models.differences(model, folder):
            raise BackupError(f"model: {'; '.join(wrong)}")
        else:
            work.say(f"ok    models      {folder}: every file as it was")


def _start(work: _Restore) -> None:
    done = subprocess.run(["systemctl", "start", "nllbd.service"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotReady(f"systemctl start nllbd.service: {done.stderr.strip()[-300:]}; see journalctl -u nllbd")
    work.say("ok    start       nllbd.service")


def _translate(work: _Restore) -> None:
    """Wait for a translation, and hold it against the one of the day of the backup."""
    server = asking.Server(asking.api_url(read_settings(work.plan)), check_key(work.plan.credentials))
    end = time.monotonic() + _READY_S
    while True:
        try:
            smoke = asking.smoke_translation(server)
            break
        except NllbdError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    work.say(f"ok    translate   {smoke.text!r} became {smoke.translation!r}")
    compare_canary(work.manifest, smoke, server.get("/version").json(), work.say)


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _is_active(unit: str) -> bool:
    return _has_systemd() and subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
