"""Folders in place of a host: settings, secrets, state and a restic repository, all below one temporary folder."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

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


def make_place(top: Path) -> Place:
    """Without a repository."""
    made = Place(top)
    for folder in (made.credentials, made.state, made.textfiles):
        folder.mkdir(parents=True)
    made.secret("backup_password", PASSWORD)
    made.config.write_text("metrics_port = 0\n", encoding="utf-8")
    made.write_plan()
    return made


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a database that has one key, and an empty repository."""
    need("restic")
    made = make_place(tmp_path_factory.mktemp("prepared") / "host")
    made.nllbd("keys", "create", "ada", "--config", str(made.config))
    made.restic("init")
    make_password_cheap(made.repository)
    return made


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Place:
    """A copy of the prepared one."""
    made = Place(tmp_path / "host")
    shutil.copytree(prepared.top, made.top)
    made.write_plan()
    return made


def make_password_cheap(repository: Path) -> None:
    """restic makes trying a password cost half a second of computing, at every call: here it may cost nothing.

    The key file is written anew with scrypt's least parameters around the same master key.
    Format: https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac
    """
    (path,) = (repository / "keys").iterdir()
    key = json.loads(path.read_bytes())
    sealed = base64.b64decode(key["data"])
    user = _derived(key)
    plain = _ctr(user[:32], sealed[:16], sealed[16:-16])
    key |= {"N": 2, "r": 1, "p": 1}
    user, nonce = _derived(key), os.urandom(16)
    content = _ctr(user[:32], nonce, plain)
    block = Cipher(algorithms.AES(user[32:48]), modes.ECB()).encryptor()
    tag = Poly1305.generate_tag(user[48:64] + block.update(nonce), content)
    written = json.dumps(key | {"data": base64.b64encode(nonce + content + tag).decode()}).encode()
    path.unlink()
    path.with_name(hashlib.sha256(written).hexdigest()).write_bytes(written)


def _derived(key: dict[str, Any]) -> bytes:
    salt = base64.b64decode(key["salt"])
    return Scrypt(salt, length=64, n=key["N"], r=key["r"], p=key["p"]).derive(PASSWORD.encode())


def _ctr(key: bytes, nonce: bytes, content: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor().update(content)
