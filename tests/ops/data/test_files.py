"""The files of deploy/redis, deploy/postgres and deploy/storage without anything running: scripts, units, settings."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ops.kit.programs import CHECKOUT, need

DEPLOY = CHECKOUT / "deploy"
FOLDERS = ("lib", "redis", "postgres", "storage")
#: These take what systemd or the container's image hands them.
CALLED_BY_OTHERS = ("pg-guard", "primary-init.sh", "standby.sh")
BASH = b"#!/usr/bin/env bash"


def scripts() -> list[Path]:
    files = (file for folder in FOLDERS for file in sorted((DEPLOY / folder).rglob("*")) if file.is_file())
    return [file for file in files if file.read_bytes().startswith(BASH)]


def named(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def test_shellcheck_finds_nothing() -> None:
    files = [*map(str, scripts()), str(DEPLOY / "lib/common.sh"), str(DEPLOY / "postgres/bin/lib.sh")]
    done = subprocess.run(
        [str(need("shellcheck")["shellcheck"]), "-x", "-P", ".", *files], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", scripts(), ids=named)
def test_help(script: Path) -> None:
    assert os.access(script, os.X_OK)
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.stem in done.stdout
    assert not re.search(r"^#|set -euo", done.stdout, re.MULTILINE)


TLS = ("--bind", "192.0.2.1", "--tls", "/tls")


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("redis/bin/setup-redis", (*TLS, "--sentinel", "2"), "/etc/redis/sentinel.conf"),
        (
            "redis/bin/make-users",
            ("--secrets", "/nowhere/s", "--out", "/nowhere/o"),
            "/nowhere/o/users.acl",
        ),
        ("redis/bin/redis-failover", (), "SENTINEL FAILOVER nllbd-cache"),
        ("redis/bin/redis-as", ("PING",), "--askpass"),
        ("postgres/bin/pg-setup-primary", (*TLS, "--network", "192.0.2.0/24"), "10-nllbd.conf"),
        ("postgres/bin/pg-setup-standby", (*TLS, "--network", "192.0.2.0/24", "--primary", "p"), "pg_basebackup"),
        ("postgres/bin/pg-setup-backup", ("--repository", "/r.conf"), "30-archive.conf"),
        ("postgres/bin/pg-failover", (), "promote this standby"),
        ("postgres/bin/pg-rewind", ("--primary", "p"), "pg_rewind"),
        ("postgres/bin/pg-sync", ("off",), "SQL as postgres"),
        ("postgres/bin/pg-restore", ("--latest",), "restore"),
        ("postgres/bin/pg-backup", ("full",), "pgbackrest"),
        ("storage/bin/setup-storage", ("--nfs", "s:/e"), "var-lib-nllbd-models.automount"),
        ("storage/bin/setup-storage", ("--remove",), "var-lib-nllbd-models"),
        ("lib/internal-ca", ("init", "--folder", "/nowhere/ca"), "openssl req"),
    ],
)
def test_dry_runs_tell_and_do_nothing(script: str, arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    command = [str(DEPLOY / script), *arguments, "--dry-run"]
    if script == "redis/bin/redis-as":
        command = [command[0], "--dry-run", *arguments]
    before = {path: path.stat().st_mtime_ns for path in Path("/etc").iterdir()}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "VERSION": "15", "SECRETS": "/nowhere"}
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stderr
    assert "would" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("/etc").iterdir() if path in before} == before
    assert not Path("/nowhere").exists()


@pytest.mark.parametrize("script", [it for it in scripts() if it.name not in CALLED_BY_OTHERS], ids=named)
def test_an_unknown_argument_changes_nothing(script: Path) -> None:
    done = subprocess.run([str(script), "--no-such-thing"], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_units() -> None:
    systemd_analyze = str(need("systemd-analyze")["systemd-analyze"])
    storage = sorted((DEPLOY / "storage/systemd").glob("*mount"))
    done = subprocess.run([systemd_analyze, "verify", "--man=no", *map(str, storage)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for unit in storage:
        where = re.findall(r"^Where=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
        assert where == ["/" + unit.stem.replace("-", "/")], "systemd wants the folder's path as the unit's name"


def test_compose_and_its_files() -> None:
    folder = DEPLOY / "postgres/compose"
    file = yaml.safe_load((folder / "compose.yml").read_text("utf-8"))
    for service in file["services"].values():
        assert service["secrets"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            made_by_hand = source.startswith("./tls/")
            assert not source.startswith(".") or made_by_hand or (folder / source).is_file()
        assert "latest" not in service["image"]
    assert file["networks"]["database"]["internal"]


def test_users_get_hashes_of_their_secrets(tmp_path: Path) -> None:
    command = [str(DEPLOY / "redis/bin/make-users"), "--secrets", str(tmp_path / "s"), "--out", str(tmp_path)]
    command += ["--owner", f"{os.getuid()}:{os.getgid()}"]
    subprocess.run(command, check=True)
    acl = (tmp_path / "users.acl").read_text()
    for user in ("nllbd", "replica", "sentinel", "backup", "exporter", "admin"):
        secret = (tmp_path / "s" / user).read_text().strip()
        assert len(secret) == 64
        line = next(line for line in acl.splitlines() if line.startswith(f"user {user} "))
        assert f"#{hashlib.sha256(secret.encode()).hexdigest()} " in line
        assert secret not in acl
        assert "-@all" in line or user == "admin"
        assert (tmp_path / "s" / user).stat().st_mode & 0o777 == 0o600
    subprocess.run(command, check=True)
    assert (tmp_path / "users.acl").read_text() == acl, "a second run changes nothing"
