"""Folders in place of a host: settings, secrets, state and a restic repository, all below one temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ops.kit.programs import CHECKOUT, need

PASSWORD = "correct horse battery staple"


@dataclass
class Place:
    """A host in folders. `run` is one of deploy/backup's scripts, with this place's plan."""

    top: Path

    @property
    def plan(self) -> Path:
        return self.top / "etc/nllbd/backup.toml"

    @property
    def state(self) -> Path:
        return self.top / "var/nllbd"

    @property
    def config(self) -> Path:
        return self.top / "etc/nllbd/nllbd.toml"

    @property
    def credentials(self) -> Path:
        return self.top / "etc/nllbd/credentials"

    @property
    def repository(self) -> Path:
        return self.top / "repository"

    @property
    def textfiles(self) -> Path:
        return self.top / "textfiles"

    def write_plan(self, **more: object) -> None:
        values = {
            "repository": str(self.repository),
            "password_file": str(self.credentials / "backup_password"),
            "paths": [str(self.config.parent)],
            "config": str(self.config),
            "credentials": str(self.credentials),
            "state": str(self.state),
            "folder": str(self.top / "work"),
            "textfiles": str(self.textfiles),
            "host": "place",
        } | more
        keep = values.pop("keep", {})
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        lines += ["[keep]", *(f"{name} = {value}" for name, value in dict(keep).items())]  # type: ignore[call-overload]
        self.plan.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def secret(self, name: str, text: str) -> Path:
        path = self.credentials / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        nllbd = Path(sys.executable).with_name("nllbd")
        command = [str(CHECKOUT / "deploy/backup" / script), "--plan", str(self.plan), *arguments]
        done = subprocess.run(
            command, env=os.environ | {"NLLBD": str(nllbd)}, capture_output=True, text=True, check=False, timeout=120
        )
        if check:
            assert done.returncode == 0, f"{script}: {done.stdout}\n{done.stderr}"
        return done

    def nllbd(self, *arguments: str) -> str:
        environ = os.environ | {"STATE_DIRECTORY": str(self.state), "CREDENTIALS_DIRECTORY": str(self.credentials)}
        command = [sys.executable, "-m", "nllbd", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout

    def restic(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["restic", "--repo", str(self.repository), "--no-cache", *arguments]
        environ = os.environ | {"RESTIC_PASSWORD_FILE": str(self.credentials / "backup_password")}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=check, timeout=60)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else repr(value).replace("'", '"')


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """With a database that has one key."""
    need("restic")
    made = Place(tmp_path / "host")
    for folder in (made.credentials, made.state, made.textfiles):
        folder.mkdir(parents=True)
    made.secret("backup_password", PASSWORD)
    made.config.write_text("metrics_port = 0\n", encoding="utf-8")
    made.write_plan()
    made.nllbd("keys", "create", "ada", "--config", str(made.config))
    return made
