"""The guide's own backup and recovery scripts, as far as they show why they are not what stands here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.kit.daemons import free_port
from tests.ops.kit.programs import eventually, need


def _bash(script: str, folder: Path, **stubs: str) -> subprocess.CompletedProcess[str]:
    """Run the guide's lines; `stubs` are programs that are not here, as the body of a shell script each."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, body in stubs.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def slow_redis(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A Redis with an old dump, new data, and a save that takes two seconds."""
    need("redis-server", "redis-cli")
    port, folder = free_port(), tmp_path / "redis"
    folder.mkdir()
    server = ["redis-server", "--port", str(port), "--dir", str(folder), "--save", ""]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: _redis(port, "PING") == "PONG", what="redis")
        _redis(port, "SET", "old", "1")
        _redis(port, "SAVE")
        _redis(port, "EVAL", "for i = 0, 200 do redis.call('SET', 'new' .. i, '1') end", "0")
        _redis(port, "CONFIG", "SET", "rdb-key-save-delay", "10000")
        yield port, folder
        process.kill()


def _redis(port: int, *command: str) -> str:
    call = ["redis-cli", "-p", str(port), *command]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


def test_bgsave_that_is_copied_before_it_ended_is_the_old_dump(slow_redis: tuple[int, Path], tmp_path: Path) -> None:
    """`redis-cli BGSAVE; docker cp dump.rdb`: BGSAVE only begins to save."""
    port, folder = slow_redis
    assert "started" in _redis(port, "BGSAVE")
    shutil.copy(folder / "dump.rdb", tmp_path / "copied.rdb")
    content = (tmp_path / "copied.rdb").read_bytes()
    assert b"old" in content
    assert b"new0" not in content


def test_a_dump_that_fails_is_a_backup_by_the_guide(tmp_path: Path) -> None:
    """`docker exec … pg_dump | gzip >file`: gzip's exit code counts, and an empty archive is a good one."""
    done = _bash(
        "docker exec postgres-primary pg_dump -U nllb nllb | gzip > database.sql.gz; echo Backup completed",
        tmp_path,
        docker="echo 'no such container' >&2; exit 1",
    )
    assert done.returncode == 0
    assert "Backup completed" in done.stdout
    assert subprocess.run(["gzip", "-t", tmp_path / "database.sql.gz"], check=False).returncode == 0
    restored = subprocess.run(["gzip", "-dc", tmp_path / "database.sql.gz"], capture_output=True, check=True).stdout
    assert restored == b"", "nobody restored it, so nobody knows"


def test_secrets_lie_in_clear_in_the_guides_archive(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("JWT_SECRET=s3cret\n", encoding="utf-8")
    done = _bash("tar czf configs.tar.gz .env", tmp_path)
    assert done.returncode == 0
    with tarfile.open(tmp_path / "configs.tar.gz") as archive:
        member = archive.extractfile(".env")
        assert member is not None
        assert b"s3cret" in member.read()


_RETENTION = """
aws s3 ls "s3://$S3_BUCKET/nllb-backups/" | grep -v "$(date +%Y-%m)" | awk '{print $4}' \
| xargs -I {} aws s3 rm "s3://$S3_BUCKET/nllb-backups/{}" --recursive
"""
_AWS = """
case "$2" in
  ls) cat "$LISTING" ;;
  rm) echo "rm $3" >>removed ;;
esac
"""


def _removed(folder: Path, listing: str, today: str) -> list[str]:
    (folder / "listing").write_text(listing, encoding="utf-8")
    lines = f"export LISTING=listing S3_BUCKET=b\n{_RETENTION}"
    _bash(lines, folder, aws=_AWS, date=f"echo {today}")
    file = folder / "removed"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def test_retention_by_the_month_forgets_yesterday_on_the_first(tmp_path: Path) -> None:
    """On 1 December everything of November goes, the day before included, whatever RETENTION_DAYS says."""
    listing = "2026-11-30 02:00:00 1024 backup-20261130\n2026-12-01 02:00:00 1024 backup-20261201\n"
    assert _removed(tmp_path, listing, "2026-12") == ["rm s3://b/nllb-backups/backup-20261130"]


def test_retention_by_the_month_never_forgets_the_folders_that_the_guide_makes(tmp_path: Path) -> None:
    """`aws s3 ls` shows folders as `PRE name/`: the fourth word is empty, and so nothing at all is ever removed."""
    listing = "                           PRE nllb-20200101-020000/\n"
    assert _removed(tmp_path, listing, "2026-12") == []


def test_find_removes_the_parent_folder_with_todays_backup(tmp_path: Path) -> None:
    """`find /backup -name "nllb-*" -mtime +30 -exec rm -rf`: a folder's time is not the age of what is in it."""
    host = tmp_path / "backup/nllb-host1"
    today = host / "nllb-today"
    today.mkdir(parents=True)
    (today / "database.sql.gz").write_bytes(b"fresh")
    long_ago = time.time() - 40 * 86400
    os.utime(host, (long_ago, long_ago))
    _bash(r'find backup -name "nllb-*" -mtime +30 -exec rm -rf {} \;', tmp_path)
    assert not today.exists()


_RECOVERY = """
docker-compose down
gunzip < database.sql.gz | docker exec -i postgres-primary psql -U nllb nllb
docker cp dump.rdb redis:/data/
docker-compose up -d
curl -f http://localhost:8000/health || exit 1
echo "Disaster recovery completed successfully"
"""


def test_the_guides_recovery_restores_into_containers_that_it_has_just_removed(tmp_path: Path) -> None:
    """The stand-in knows one thing of docker: exec and cp want a container that is there. The script goes on, starts an
    empty service and calls that a success.
    """
    (tmp_path / "up").touch()
    subprocess.run("gzip -c </dev/null >database.sql.gz; touch dump.rdb", shell=True, cwd=tmp_path, check=True)
    done = _bash(
        _RECOVERY,
        tmp_path,
        **{"docker-compose": 'case "$1" in down) rm -f up ;; up) touch up ;; esac'},
        docker='if [ ! -e up ]; then echo "Error: No such container" >&2; exit 1; fi; echo "$1" >>restored',
        curl="exit 0",
    )
    assert "completed successfully" in done.stdout
    assert done.stderr.count("No such container") == 2
    assert not (tmp_path / "restored").exists()
