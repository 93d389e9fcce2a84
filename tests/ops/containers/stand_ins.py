"""nginx, Redis and PostgreSQL as images without a registry: this machine's programs on Debian's base, under the names,
users and promises of the official images that the shipped files rely on."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.ops.containers import images
from tests.ops.containers.docker import Docker
from tests.ops.kit.programs import need

NGINX, REDIS, POSTGRES = "localhost/stand-in/nginx:1", "localhost/stand-in/redis:1", "localhost/stand-in/postgres:1"
ENVIRON = {"NGINX_IMAGE": NGINX, "REDIS_IMAGE": REDIS, "POSTGRES_IMAGE": POSTGRES}

#: What of the official image's entry point is used: a first start makes the cluster, its user with the password of a
#: file, its database, and lets the network in with passwords only.
POSTGRES_ENTRY = """#!/bin/sh
set -e
export PGDATA=/var/lib/postgresql/data/pgdata
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS --no-sync >/dev/null
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start >/dev/null
  psql --username="$POSTGRES_USER" --dbname=postgres --quiet --command="create database $POSTGRES_DB"
  pg_ctl --wait stop >/dev/null
fi
exec "$@" -c listen_addresses='*'
"""


def make_nginx(docker: Docker) -> None:
    programs = need("nginx")
    files = [programs["nginx"], Path("/etc/nginx/mime.types")]
    _make(
        docker,
        NGINX,
        files,
        "RUN useradd --uid 101 --user-group --no-create-home nginx && mkdir -p /var/log/nginx /usr/share/nginx",
    )


def make_redis(docker: Docker) -> None:
    files = need("redis-server", "redis-cli").values()
    _make(docker, REDIS, files, "RUN useradd --uid 999 --user-group --no-create-home redis")


def make_postgres(docker: Docker) -> None:
    initdb = need("initdb", "postgres")["initdb"].resolve()
    programs = [initdb.with_name(name) for name in ("initdb", "postgres", "pg_ctl", "psql", "pg_isready")]
    share = Path("/usr/share/postgresql") / initdb.parents[1].name
    rest = (
        path
        for folder in (initdb.parents[1] / "lib", share)
        for path in folder.rglob("*")
        if "bitcode" not in path.parts
    )
    lines = (
        "RUN useradd --uid 999 --user-group --no-create-home postgres"
        " && install -d -o 999 -g 999 /var/lib/postgresql/data /run/postgresql",
        f"ENV PATH={initdb.parent}:/usr/bin:/bin",
        'ENTRYPOINT ["/entry"]',
        'CMD ["postgres"]',
    )
    _make(docker, POSTGRES, [*programs, *rest], *lines, entry=POSTGRES_ENTRY)


def _make(docker: Docker, name: str, files: Iterable[Path], *lines: str, entry: str | None = None) -> None:
    folder = docker.folder / "stand-in"
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "files.tar", "w") as archive:
        for path, source in sorted({**dict(_with_libraries(files))}.items()):
            archive.add(source, path, recursive=False)
        if entry is not None:
            member = tarfile.TarInfo("entry")
            member.size, member.mode = len(entry.encode()), 0o755
            archive.addfile(member, io.BytesIO(entry.encode()))
    (folder / "Dockerfile").write_text("\n".join((f"FROM {images.RUNTIME_BASE}", "ADD files.tar /", *lines, "")))
    environ = {"DOCKER_BUILDKIT": "0"}
    docker.run("build", "--quiet", "--network", "none", "--tag", name, folder, environ=environ)


def _with_libraries(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Where each file lies in the image, and here; programs with the libraries that they load."""
    for file in files:
        yield str(file), file.resolve()
        if file.suffix == ".so" or (file.stat().st_mode & 0o111 and file.is_file()):
            listed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
            for word in listed.split():
                if word.startswith("/"):
                    library = Path(word)
                    yield f"/usr/lib/x86_64-linux-gnu/{library.name}", library.resolve()
