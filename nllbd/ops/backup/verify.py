"""Is the newest backup one? It is restored into a scratch folder, its database opened and counted, and a daemon
started from it that has to translate. What only restores has not been verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from nllbd.checkpoint import resolve_model
from nllbd.ops import asking
from nllbd.ops.backup import facts, models, postgres, sqlite, tree
from nllbd.ops.backup.manifest import KIND as MANIFEST
from nllbd.ops.backup.manifest import NAME as MANIFEST_NAME
from nllbd.ops.backup.manifest import Manifest, Piece
from nllbd.ops.backup.plan import Plan
from nllbd.ops.backup.restic import BackupError, Restic
from nllbd.ops.backup.run import DATABASE, Say, locked, read_settings, write_metrics
from nllbd.ops.textfile import Sample
from nllbd.ops.trial import TrialDaemon, give_to_service, own_settings, service_user

METRICS_FILE = "nllbd-backup-verify.prom"
HELPS = {
    "nllbd_backup_last_verified_timestamp_seconds": "When a backup was last restored and translated with.",
    "nllbd_backup_verified_age_seconds": "How old that backup was then.",
}
_SCRATCH = "scratch-"
_POSTGRES = "postgres"  # who may run a server where the service has no user of its own


def newest(restic: Restic, run: str = "") -> Manifest:
    """The manifest of the newest backup, or of the one whose manifest's snapshot id begins with `run`."""
    found = [it for it in restic.snapshots() if it.kind == MANIFEST and it.id.startswith(run)]
    if not found:
        raise BackupError("the repository has no such backup of this host; `--host NAME` chooses another's")
    return Manifest.from_json(b"".join(restic.read_stream(found[-1].id, MANIFEST_NAME)))


def verify(plan: Plan, say: Say, run: str = "") -> Manifest:
    """Verify the newest backup, or the one that `run` names. Raises BackupError, NotReady saying what is wrong."""
    with locked(plan):
        restic = Restic(plan)
        restic.unlock()
        remove_leftovers(plan)
        restic.check(plan.check_percent)
        say(f"ok    repository  whole; {plan.check_percent} % of its data read")
        manifest = newest(restic, run)
        with scratch(plan) as folder:
            _verify_in(folder, plan, restic, manifest, say)
    now = time.time()
    age_s = now - datetime.fromisoformat(manifest.time).timestamp()
    samples = [Sample(name, round(value, 3)) for name, value in zip(HELPS, (now, age_s), strict=True)]
    write_metrics(plan, METRICS_FILE, samples, HELPS)
    return manifest


def checked(restic: Restic, piece: Piece) -> Iterator[bytes]:
    """A stream out of the repository; an error at its end unless it is what was stored."""
    digest = hashlib.sha256()
    for chunk in restic.read_stream(piece.snapshot, piece.details["name"]):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != piece.sha256:
        raise BackupError(f"{piece.kind}: what comes out of the repository is not what was stored")


def _verify_in(scratch: Path, plan: Plan, restic: Restic, manifest: Manifest, say: Say) -> None:
    pieces = {piece.kind: piece for piece in manifest.pieces}
    for kind in ("files", "state", "database", "models"):
        if kind not in pieces:
            raise BackupError(f"the backup of {manifest.time} has no {kind}")
    restic.restore_files(pieces["files"].snapshot, scratch / "root", [str(plan.config.parent)])
    state = scratch / "state"
    tree.put(checked(restic, pieces["state"]), state)
    say(f"ok    files       restored from the backup of {manifest.time}")
    _verify_models(plan, json.loads(b"".join(checked(restic, pieces["models"]))), say)
    for kind in ("redis", "redis-rates"):
        if kind in pieces:
            _verify_rdb(checked(restic, pieces[kind]), scratch / f"{kind}.rdb", say)
    with _database(scratch, restic, pieces["database"]) as (url, found):
        if wrong := facts.differences(dict(manifest.facts), found):
            raise BackupError(f"the restored database differs: {'; '.join(wrong)}")
        say(f"ok    database    {found['keys']} keys, {found['usage_characters']} characters of usage, as stored")
        _translate(scratch, plan, manifest, url, say)


@contextmanager
def _database(scratch: Path, restic: Restic, piece: Piece) -> Iterator[tuple[str, dict[str, Any]]]:
    """The restored database's URL and facts."""
    if piece.details["engine"] == "sqlite":
        path = scratch / "state" / DATABASE
        sqlite.put(checked(restic, piece), path)
        found = sqlite.check(path)
        yield f"sqlite+aiosqlite:///{path}", found
        return
    with _scratch_cluster(scratch) as url:
        server = postgres.Server.from_url(url)
        postgres.put(checked(restic, piece), server, replace=False)
        yield url, postgres.facts_of(server)


@contextmanager
def _scratch_cluster(scratch: Path) -> Iterator[str]:
    """A PostgreSQL of our own, reachable by a socket in the scratch folder only."""
    folder, sockets = scratch / "postgres", scratch / "sockets"
    for made in (folder, sockets):
        made.mkdir(mode=0o700)
    give_to_service([scratch, folder, sockets], _POSTGRES)
    user = service_user(_POSTGRES)
    initdb, server = postgres.program("initdb"), postgres.program("postgres")
    base = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"}
    options: dict[str, Any] = {"env": base, "cwd": folder, "stdin": subprocess.DEVNULL, **user}
    command = [initdb, "-D", str(folder), "-U", "nllbd", "-A", "trust", "-E", "UTF8", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise BackupError(f"initdb: {done.stderr.strip()[-300:]}")
    settings = ("listen_addresses=", f"unix_socket_directories={sockets}", "fsync=off", "max_connections=20")
    flags = [word for setting in settings for word in ("-c", setting)]
    with (scratch / "postgres.log").open("wb") as log:
        process = subprocess.Popen([server, "-D", str(folder), *flags], stdout=log, stderr=log, **options)
    try:
        url = f"postgresql+asyncpg://nllbd@/postgres?host={sockets}"
        _wait_for_postgres(process, url, scratch / "postgres.log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_for_postgres(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + 60.0
    while time.monotonic() < end and process.poll() is None:
        with suppress(BackupError):
            postgres.num_tables(postgres.Server.from_url(url))
            return
        time.sleep(0.1)
    raise BackupError(f"the scratch PostgreSQL does not start: {log.read_text('utf-8', 'replace')[-300:]}")


def _verify_models(plan: Plan, described: list[dict[str, Any]], say: Say) -> None:
    """What of the models is on this host is what it was; what is not can be pulled again."""
    for model in described:
        folder = Path(model["folder"])
        if not folder.is_dir():
            say(f"note  models      {folder} is not on this host; {_where_from(model)}")
        elif not model["bundled"] and (wrong := models.differences(model, folder)):
            raise BackupError(f"model: {'; '.join(wrong)}")
    say(f"ok    models      {len(described)} described, their checksums compared with what is here")


def _where_from(model: dict[str, Any]) -> str:
    return f"nllbd model pull {model['model_id']}" if model["model_id"] else "nobody knows where it came from"


def _verify_rdb(chunks: Iterator[bytes], file: Path, say: Say) -> None:
    with file.open("wb") as out:
        out.writelines(chunks)
    checker = shutil.which("redis-check-rdb")
    if checker is None:
        say("note  redis       stream is as stored; redis-check-rdb is not installed, so it was not read")
        return
    done = subprocess.run([checker, str(file)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"redis: redis-check-rdb: {done.stdout.strip()[-200:]}")
    say(f"ok    redis       {file.stat().st_size} bytes, read by redis-check-rdb")


def _translate(scratch: Path, plan: Plan, manifest: Manifest, url: str, say: Say) -> None:
    config, credentials = _config(scratch, plan, url), _credentials(scratch, plan)
    give_to_service([scratch, *scratch.rglob("*")])
    daemon = TrialDaemon(config, scratch / "state", credentials)
    made = json.loads(daemon.run("keys", "create", "backup-verify", "--expires", "1h", "--json"))
    with daemon:
        smoke = asking.smoke_translation(asking.Server(daemon.server.url, made["key"]))
        about = daemon.server.get("/version").json()
    say(f"ok    daemon      started from the backup; {smoke.text!r} became {smoke.translation!r}")
    compare_canary(manifest, smoke, about, say)


def compare_canary(manifest: Manifest, smoke: asking.Smoke, about: dict[str, Any], say: Say) -> None:
    """The same model on the same kind of device makes the same of the same text. Raises BackupError."""
    canary = manifest.canary
    if canary is None or any(canary[name] != about[name] for name in ("fingerprint", "device", "dtype")):
        say("note  canary      nothing to compare that translation with")
        return
    if canary["translation"] != smoke.translation:
        raise BackupError(f"the translation was {canary['translation']!r}, and now is {smoke.translation!r}")
    say("ok    canary      the same translation as on the day of the backup")


def _config(scratch: Path, plan: Plan, url: str) -> Path:
    """The restored settings, for a daemon beside the host's own."""
    restored = scratch / "root" / plan.config.relative_to("/")
    table = tomllib.loads(restored.read_text(encoding="utf-8")) if restored.exists() else {}
    settings = read_settings(plan)
    if settings.model != "demo":  # weights are the host's own, which were compared with the backup's checksums
        table["model"] = str(resolve_model(settings.model, settings.model_dir))
    for name, value in table.items():
        inside = scratch / "root" / str(value).lstrip("/")
        if name.endswith("_file") and isinstance(value, str) and inside.exists():
            table[name] = str(inside)
    config = scratch / "trial.toml"
    config.touch(mode=0o600)
    config.write_text(own_settings(table, database_url=url), encoding="utf-8")
    return config


def _credentials(scratch: Path, plan: Plan) -> Path | None:
    restored = scratch / "root" / plan.credentials.relative_to("/")
    for name in ("database_url", "redis_url", "rate_limit_redis_url", "sentry_dsn", "otlp_endpoint"):
        (restored / name).unlink(missing_ok=True)
    return restored if restored.is_dir() else None


@contextmanager
def scratch(plan: Plan) -> Iterator[Path]:
    """A folder for what was restored, secrets among it: the service's alone, and gone afterwards whatever happens."""
    folder = Path(mkdtemp(prefix=_SCRATCH, dir=plan.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(plan: Plan) -> None:
    """What a verification or a restore that was killed left. Call under the lock."""
    for folder in plan.folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(folder, ignore_errors=True)
