"""Backups with the real restic, SQLite and Redis: what is in them, what keeps a run from being one, what stays."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.ops.backup.bucket import bucket
from tests.ops.backup.conftest import PASSWORD, Place
from tests.ops.kit.daemons import free_port
from tests.ops.kit.programs import eventually, need

pytestmark = pytest.mark.ops

SECRET = "jwt-secret-5f2c9d1e7b"


def _snapshots(place: Place) -> list[tuple[str, str]]:
    """(kind, time) of each."""
    found = json.loads(place.restic("snapshots", "--json").stdout)
    return [(next(tag for tag in it["tags"] if tag != "nllbd"), it["time"]) for it in found]


def test_a_backup_is_verified_and_restored(place: Place) -> None:
    """Into a folder: the same database, settings, secrets with their modes, journal."""
    place.secret("jwt_secret", SECRET)
    (place.state / "usage/gone").mkdir(parents=True)
    (place.state / "usage/gone/abc.usage").write_bytes(b"a segment\n")
    place.run("backup")
    assert "is good" in place.run("backup-verify").stdout
    target = place.top / "new"
    done = place.run("restore", "--root", str(target))
    inside = target / str(place.top).lstrip("/")
    assert (inside / "var/nllbd/usage/gone/abc.usage").read_bytes() == b"a segment\n"
    assert (inside / "etc/nllbd/credentials/jwt_secret").read_text("utf-8") == SECRET
    assert (inside / "etc/nllbd/credentials/jwt_secret").stat().st_mode & 0o777 == 0o600
    assert not (inside / "etc/nllbd/credentials/backup_password").exists(), (
        "the password is no use inside its own backup"
    )
    assert _keys(inside / "var/nllbd/nllbd.db") == _keys(place.state / "nllbd.db") != []
    assert re.search(r"done  restored in [0-9.]+ s", done.stdout)


def _keys(database: Path) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute("SELECT id, digest FROM keys").fetchall()


def test_no_secret_is_in_clear_anywhere(place: Place) -> None:
    """Nor in the repository, nor in what restic's process shows, nor in what is left on the disk."""
    place.secret("jwt_secret", SECRET)
    seen = _watched(place, lambda: place.run("backup"))
    for path in (it for it in place.top.rglob("*") if it.is_file() and place.credentials not in it.parents):
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert PASSWORD.encode() not in content, path
    assert "restic" in seen
    assert PASSWORD not in seen
    assert SECRET not in seen


def _watched(place: Place, work: object) -> str:
    """Command lines and environments of all restics of this place while `work` is done."""
    done, seen = threading.Event(), set()

    def watch() -> None:
        while not done.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    command = (process / "cmdline").read_bytes()
                    if b"restic" in command.split(b"\0")[0]:
                        seen.add(command + (process / "environ").read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()  # type: ignore[operator]
    finally:
        done.set()
        watcher.join()
    return b"\n".join(it for it in seen if str(place.top).encode() in it).replace(b"\0", b" ").decode()


def test_a_run_whose_source_fails_is_no_backup(place: Place) -> None:
    """It ends with 1, leaves no manifest and no cut stream; the last good one stays the newest; the next run tidies."""
    place.run("backup")
    good = len(_snapshots(place))
    database = (place.state / "nllbd.db").read_bytes()
    (place.state / "nllbd.db").write_bytes(b"not a database" * 1000)
    before = _metric(place, "nllbd_backup_last_success_timestamp_seconds", "database")
    failed = place.run("backup", check=False)
    assert failed.returncode == 1
    assert "no backup was made" in failed.stderr
    assert "database" not in [kind for kind, _ in _snapshots(place)[good:]]
    assert _metric(place, "nllbd_backup_last_success_timestamp_seconds", "database") == before
    (place.state / "nllbd.db").write_bytes(database)
    assert "is good" in place.run("backup-verify").stdout, "the good one before it"
    place.run("backup")
    assert len({time for _, time in _snapshots(place)}) == 2, "what the failed run left is gone"


def _metric(place: Place, name: str, kind: str) -> float:
    text = (place.textfiles / "nllbd-backup.prom").read_text("utf-8")
    found = re.search(rf'^{name}{{kind="{kind}"}} ([0-9.e+]+)$', text, re.MULTILINE)
    assert found
    return float(found[1])


def test_retention_keeps_whole_backups(place: Place) -> None:
    """Every backup that stays has all its pieces, and what they need."""
    place.write_plan(keep={"last": 2, "daily": 0, "weekly": 0, "monthly": 0})
    place.run("backup")
    for _ in range(2):
        place.run("backup")
    found = _snapshots(place)
    times = {time for _, time in found}
    assert len(times) == 2
    for moment in times:
        kinds = sorted(kind for kind, time in found if time == moment)
        assert kinds == ["database", "files", "manifest", "models", "state"]
    place.restic("check", "--read-data")


def test_another_hosts_backups_are_left_alone(place: Place) -> None:
    place.run("backup")
    place.write_plan(host="another", keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0})
    place.run("backup")
    place.run("backup")
    hosts = [it["hostname"] for it in json.loads(place.restic("snapshots", "--json").stdout)]
    assert hosts.count("place") == hosts.count("another") == 5


def test_a_damaged_repository_does_not_verify(place: Place) -> None:
    """And the figure of the last verification stays as old as it is."""
    place.write_plan(check_percent=100)
    place.run("backup")
    largest = max((place.repository / "data").rglob("*"), key=lambda it: it.stat().st_size if it.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.chmod(0o600)
    largest.write_bytes(content)
    failed = place.run("backup-verify", check=False)
    assert failed.returncode == 1
    assert not (place.textfiles / "nllbd-backup-verify.prom").exists()


def test_a_backup_that_restores_but_does_not_serve_does_not_verify(place: Place) -> None:
    """A settings file that no daemon starts with: the daemon of that host would not come up from it."""
    place.run("backup")
    place.config.write_text("num_beams = 99\n", encoding="utf-8")
    failed = place.run("backup", check=False)
    assert failed.returncode == 2, "settings that cannot be read are said at once"
    place.config.write_text('metrics_port = 0\nmodel = "/nowhere"\n', encoding="utf-8")
    place.run("backup")
    failed = place.run("backup-verify", check=False)
    assert failed.returncode == 1
    assert "/nowhere" in failed.stderr
    assert not list((place.top / "work").glob("scratch-*"))


def test_nothing_is_overwritten_unasked(place: Place) -> None:
    place.run("backup")
    refused = place.run("restore", check=False)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    place.nllbd("keys", "create", "later", "--config", str(place.config))
    place.run("restore", "--only", "database", "--replace", "--no-start")
    assert len(_keys(place.state / "nllbd.db")) == 1
    (kept,) = place.state.glob("nllbd.db.before-*[0-9]")
    assert len(_keys(kept)) == 2


def test_the_password_of_the_backups_rotates(place: Place) -> None:
    """As docs/operations/rotation.md has it; the old one is no use afterwards."""
    place.run("backup")
    (old_id,) = [it["id"] for it in json.loads(place.restic("key", "list", "--json").stdout)]
    new = place.secret("backup_password.new", "another password")
    place.restic("key", "add", "--new-password-file", str(new))
    new.replace(place.credentials / "backup_password")
    place.restic("key", "remove", old_id)
    assert "is good" in place.run("backup-verify").stdout
    place.secret("backup_password", PASSWORD)
    assert "wrong password" in place.run("backup", check=False).stderr


def test_two_runs_do_not_meet(place: Place) -> None:
    import fcntl

    place.run("backup")
    with (place.top / "work/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = place.run("backup", check=False)
    assert refused.returncode == 1
    assert "another backup" in refused.stderr


def test_to_s3_with_keys_from_a_file(place: Place) -> None:
    """Neither key is in restic's environment or command line, and what arrives is encrypted."""
    place.secret("jwt_secret", SECRET)
    keys = "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = s3-secret-77aa\n"
    path = place.secret("backup_s3", keys)
    with bucket("AKIAEXAMPLE") as (url, objects):
        for name in (it for it in place.repository.rglob("*") if it.is_file()):  # the prepared repository moves there
            objects[f"web1/{name.relative_to(place.repository)}"] = name.read_bytes()
        place.write_plan(repository=url, s3_credentials_file=str(path))
        seen = _watched(place, lambda: place.run("backup"))
        assert "is good" in place.run("backup-verify").stdout
        assert all(SECRET.encode() not in content for content in objects.values())
    assert "AWS_SHARED_CREDENTIALS_FILE" in seen
    assert "s3-secret-77aa" not in seen


# Redis


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """A Redis with a password, whose saves take a while."""
    programs = need("redis-server", "redis-cli")
    port = free_port()
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "redis.conf").write_text(
        f'port {port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SECRET}\nsave ""\nappendonly no\n', encoding="utf-8"
    )
    with subprocess.Popen([programs["redis-server"], folder / "redis.conf"], stdout=subprocess.DEVNULL) as server:
        eventually(lambda: _redis(port, "PING") == "PONG", what="redis")
        yield port
        server.kill()


def _redis(port: int, *command: str) -> str:
    call = ["redis-cli", "-p", str(port), "--no-auth-warning", "-a", SECRET, *command]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


@pytest.mark.parametrize("refused", ["", "-sync -psync"], ids=["by replication", "by BGSAVE"])
def test_redis_is_whole(place: Place, redis_port: int, refused: str) -> None:
    """What was written before the backup is in it, whichever way it came out, and a Redis starts from it."""
    _redis(redis_port, "DEBUG", "SLEEP", "0")
    script = "for i = 1, 5000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end"
    _redis(redis_port, "EVAL", script, "0")
    _redis(redis_port, "CONFIG", "SET", "rdb-key-save-delay", "100")
    user = "default"
    if refused:
        user = "backup"
        _redis(redis_port, "ACL", "SETUSER", "backup", "on", f">{SECRET}", "~*", "+@all", *refused.split())
    place.secret("redis_url", f"redis://{user}:{SECRET}@127.0.0.1:{redis_port}/0")
    place.run("backup")
    assert "is good" in place.run("backup-verify").stdout
    folder = place.top / "redis"
    folder.mkdir()
    place.run("restore", "--only", "redis", "--redis-folder", str(folder), "--no-start")
    port = free_port()
    server = ["redis-server", "--port", str(port), "--dir", str(folder), "--requirepass", SECRET]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL) as process:
        assert eventually(lambda: _redis(port, "DBSIZE") == "5000", what="the restored keys")
        process.kill()


def test_a_redis_that_goes_away_within_its_stream_leaves_no_piece(place: Place, redis_port: int) -> None:
    script = "for i = 1, 2000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end"
    _redis(redis_port, "EVAL", script, "0")
    _redis(redis_port, "CONFIG", "SET", "rdb-key-save-delay", "5000")  # ten seconds for the whole
    place.secret("redis_url", f"redis://:{SECRET}@127.0.0.1:{redis_port}/0")
    threading.Thread(target=_kill_while_saving, args=(redis_port,)).start()
    failed = place.run("backup", check=False)
    assert failed.returncode == 1
    assert "the backup was made, but lacks redis" in failed.stderr
    kinds = [kind for kind, _ in _snapshots(place)]
    assert "redis" not in kinds
    assert "manifest" in kinds, "a cache that is away costs nobody the night's keys"
    assert "is good" in place.run("backup-verify").stdout


def _kill_while_saving(port: int) -> None:
    eventually(lambda: "rdb_bgsave_in_progress:1" in _redis(port, "INFO", "persistence"), what="the save")
    _redis(port, "SHUTDOWN", "NOSAVE", "NOW", "FORCE")
