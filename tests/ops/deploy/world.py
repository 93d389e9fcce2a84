"""Hosts to deploy to: sources of several versions, install.sh on booted hosts, and a network between them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ops.kit.host import Host
from tests.ops.kit.programs import CHECKOUT, eventually, need
from tests.ops.kit.traffic import Traffic

ENVIRONMENT = "/opt/test-environment"
MODEL_SETTINGS = 'num_threads = 1\nrate_limit_per_minute = 0\ntrusted_proxies = ["127.0.0.1", "10.66.0.2"]\n'
#: Echoes, and starts fast.
SETTINGS = MODEL_SETTINGS + 'runner = "fake"\n'
SERVER_NAME = "api.nllbd.test"

ADDS_A_COLUMN = {
    "nllbd/store/migrations/versions/r0002_colour.py": (
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        'revision = "0002"\ndown_revision = "0001"\n\n\n'
        'def upgrade() -> None:\n    op.add_column("keys", sa.Column("colour", sa.String(20)))\n'
    ),
    "nllbd/store/migrate.py": '\nHEAD = "0002"\n',
}

_PARTS = ("nllbd", "deploy", "systemd", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE")


def make_source(folder: Path, version: str, edits: dict[str, str] | None = None) -> Path:
    """A checkout of nllbd with that version; `edits` are lines added to files of it (made if they are not there)."""
    target = folder / version
    target.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for part in _PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, target / part, ignore=ignored, symlinks=True)
        else:
            shutil.copy(CHECKOUT / part, target / part)
    about = target / "nllbd/__init__.py"
    about.write_text(
        re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', about.read_text("utf-8")), "utf-8"
    )
    for file, text in (edits or {}).items():
        with (target / file).open("a", encoding="utf-8") as opened:
            opened.write(text)
    return target


def make_wheel(source: Path) -> Path:
    """The source's package as a wheel, without the native kernels: building them takes long."""
    version = source.name
    wheel = source.parent / f"nllbd-{version}-py3-none-any.whl"
    about = f"Metadata-Version: 2.1\nName: nllbd\nVersion: {version}\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted((source / "nllbd").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(source))
        archive.writestr(f"nllbd-{version}.dist-info/METADATA", about)
    return wheel


def install_options() -> list[str]:
    """Releases stand on the interpreter and the packages that run the tests: a host has no network."""
    python = [] if sys.base_prefix.startswith("/usr") else ["--python", f"{ENVIRONMENT}/python/bin/python3"]
    return [*python, "--dependencies", f"{ENVIRONMENT}/site-packages"]


class Server:
    """A booted host that install.sh has to do with."""

    def __init__(self, name: str, netns: str | None = None) -> None:
        self.host = Host(name, netns=netns, size="2g")
        self.name = name

    def boot(self) -> Server:
        self.host.__enter__()
        if not sys.base_prefix.startswith("/usr"):
            # An interpreter built with a shared library looks for it where it was built: where only root looks.
            self.host.write("/etc/ld.so.conf.d/00-test-environment.conf", f"{ENVIRONMENT}/python/lib\n")
            self.host.run("ldconfig")
        return self

    def stop(self) -> None:
        self.host.stop()

    def run(self, *command: str, check: bool = True, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
        """The native kernels are not compiled: that takes longer than all the rest, and is tested elsewhere."""
        environ = {"CC": "/bin/false", "CXX": "/bin/false"}
        return self.host.run(*command, check=check, timeout=timeout, env=environ)

    def give(self, source: Path) -> str:
        """Where a source lies on the host."""
        target = f"/srv/nllbd-{source.name}"
        if not (self.host.root / target[1:]).exists():
            self.host.copy(source, target)
        return target

    def install(
        self, source: Path, *arguments: str, check: bool = True, built: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`install.sh` of a source: a command and its options. `built`: a wheel comes along."""
        wheel: list[str] = []
        if built:
            made = make_wheel(source)
            self.host.copy(made, f"/srv/{made.name}")
            wheel = ["--wheel", f"/srv/{made.name}"]
        script = f"{self.give(source)}/deploy/bin/install.sh"
        command = arguments[:1] if arguments and not arguments[0].startswith("-") else ()
        cautious = ("sh", "-c", 'umask 077 && exec "$@"', "sh")  # root's on many a host
        return self.run(
            *cautious, script, *command, *install_options(), *wheel, *arguments[len(command) :], check=check
        )

    def key(self) -> str:
        return self.run("cat", "/etc/nllbd/credentials/api_key").stdout.strip()

    def certificate(self, folder: Path) -> Path:
        """nginx's own certificate, for clients."""
        target = folder / f"{self.name}.pem"
        target.write_text(self.run("cat", "/etc/nginx/nllbd/site/certificate/fullchain.pem").stdout, "utf-8")
        return target

    def version(self) -> str:
        """What the commands of this host are."""
        return self.run("nllbd", "--version").stdout.split()[1]


class Wiring:
    """A network namespace a host, all joined by a bridge: 10.66.0.1 is the outside."""

    def __init__(self, names: Iterable[str]) -> None:
        self.outside = f"dp-out{os.getpid()}"
        self.spaces = {name: f"dp-{name}{os.getpid()}" for name in names}
        self.addresses = {name: f"10.66.0.{number}" for number, name in enumerate(self.spaces, start=2)}

    def __enter__(self) -> Wiring:
        for space in (self.outside, *self.spaces.values()):
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", self.outside, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.outside, "addr", "add", "10.66.0.1/24", "dev", "br0")
        _ip("-n", self.outside, "link", "set", "br0", "up")
        for number, (name, space) in enumerate(self.spaces.items()):
            port = f"p{number}"
            _ip("-n", self.outside, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", self.outside, "link", "set", port, "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for space in (*self.spaces.values(), self.outside):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@contextmanager
def database(wiring: Wiring) -> Iterator[str]:
    """The URL of a PostgreSQL outside, that all hosts reach."""
    programs, user = need("initdb", "postgres", "ip"), pwd.getpwnam("postgres")
    folder = Path(tempfile.mkdtemp(prefix="nllbd-deploy-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}
    command = [programs["initdb"], "-D", folder / "data", "-U", "nllbd", "-A", "trust", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, env={"LC_ALL": "C"}, **as_user)
    with (folder / "data/pg_hba.conf").open("a") as opened:
        opened.write("host all all 10.66.0.0/24 trust\n")
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    server = [programs["postgres"], "-D", folder / "data", "-k", folder, "-h", "10.66.0.1", "-c", "fsync=off"]
    with subprocess.Popen(
        ["ip", "netns", "exec", wiring.outside, *become, *server], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        try:
            status = folder / "data/postmaster.pid"
            eventually(lambda: status.exists() and "ready" in status.read_text("utf-8"), 30, "PostgreSQL")
            yield "postgresql+asyncpg://nllbd@10.66.0.1/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            shutil.rmtree(folder)


def write_transport(folder: Path, servers: Iterable[Server]) -> Path:
    """What stands for ssh: `enter NAME 'COMMAND'` runs it in the booted host of that name."""
    lines = ["#!/usr/bin/env bash", "set -euo pipefail", "case $1 in"]
    for server in servers:
        enter = " ".join(server.host.command("bash", "-c", env={"CC": "/bin/false", "CXX": "/bin/false"}))
        lines.append(f'  {server.name}) exec {enter} "$2" ;;')
    lines += ['  *) echo "no route to host $1" >&2; exit 255 ;;', "esac"]
    script = folder / "enter"
    script.write_text("\n".join(lines) + "\n", "utf-8")
    script.chmod(0o755)
    return script


def traffic(server: Server, key: str, wiring: Wiring, folder: Path, *, echoes: bool = True, rate: float = 8) -> Traffic:
    """Translations from outside through a server's nginx, as fast as its limits let one key be."""
    return Traffic(
        f"https://{SERVER_NAME}",
        rate=rate,
        headers={"X-API-Key": key},
        cafile=server.certificate(folder),
        addresses={SERVER_NAME: wiring.addresses[server.name]},
        netns=wiring.outside,
        retry_stale=True,
        echoes=echoes,
    )
