"""deploy/postgres/compose without its image, which no registry here has: its files where the containers have them, its
scripts and commands run as the image's entrypoint runs them, on two booted hosts.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml

from tests.ops.data.conftest import Site
from tests.ops.kit.host import Host
from tests.ops.kit.programs import CHECKOUT, eventually

pytestmark = pytest.mark.ops
COMPOSE = CHECKOUT / "deploy/postgres/compose"
PORT = "5440"
BIN = "/usr/lib/postgresql/15/bin"
SECRETS = ("postgres", "nllbd", "replicator", "backup", "exporter")


def as_postgres(host: Host, *argv: str, **environment: str) -> str:
    variables = {"PGDATA": "/srv/data", "PGPORT": PORT, "PATH": f"{BIN}:/usr/bin:/bin", **environment}
    user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
    done = host.run(*user, *argv, env=variables, check=False, timeout=90)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


def furnish(site: Site, host: Host, service: dict[str, Any], secrets: dict[str, str]) -> None:
    """The service's volumes and secrets, where it has them."""
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("./tls/"):
            host.run("cp", "-rT", "/root/tls", target)
            host.run("chown", "-R", "postgres:postgres", target)
        elif source.startswith("."):
            host.write(target, (COMPOSE / source).read_text("utf-8"), 0o644)
    for name in service["secrets"]:
        host.write(f"/run/secrets/{name}", secrets[name], 0o600)
    host.run("chown", "-R", "postgres:postgres", "/run/secrets")
    host.run("install", "-d", "-o", "postgres", "-g", "postgres", "-m", "0700", "/srv/data")
    host.run("install", "-d", "-o", "postgres", "-g", "postgres", "/var/run/postgresql")


def start(host: Host, service: dict[str, Any], *before: str, **environment: str) -> None:
    """The container's command, in a unit of its own as its container."""
    command = [*before, *service["command"], "-c", f"port={PORT}"]
    variables = {"PGDATA": "/srv/data", "PATH": f"{BIN}:/usr/bin:/bin", **environment}
    options = [f"--setenv={name}={value}" for name, value in variables.items()]
    unit = ("systemd-run", "--unit=container", "--uid=postgres", "--gid=postgres", "--property=KillSignal=SIGINT")
    host.run(*unit, *options, "/usr/bin/env", *command)


def test_the_pair_of_the_compose_file(site: Site) -> None:
    services = yaml.safe_load((COMPOSE / "compose.yml").read_text("utf-8"))["services"]
    db1, db2 = site.hosts["db1"], site.hosts["db2"]
    secrets = {name: f"{name}'s secret" for name in SECRETS}
    furnish(site, db1, services["primary"], secrets)
    furnish(site, db2, services["standby"], secrets)
    try:
        arguments = shlex.split(services["primary"]["environment"]["POSTGRES_INITDB_ARGS"])
        as_postgres(db1, "initdb", "-U", "postgres", "--pwfile=/run/secrets/postgres", *arguments)
        given = shlex.join([*services["primary"]["command"][1:], "-c", "listen_addresses=", "-c", f"port={PORT}"])
        as_postgres(db1, "pg_ctl", "-w", "-l", "/tmp/first.log", "-o", given, "start")
        as_postgres(db1, "bash", "/docker-entrypoint-initdb.d/10-nllbd.sh", POSTGRES_USER="postgres")
        as_postgres(db1, "pg_ctl", "-w", "-m", "fast", "stop")
        start(db1, services["primary"])
        eventually(lambda: db1.run("pg_isready", "-q", "-p", PORT, check=False).returncode == 0, what="the primary")

        program = ("bash", "/usr/local/bin/standby.sh")
        start(db2, services["standby"], *program, PRIMARY=site.addresses["db1"], PRIMARY_PORT=PORT)
        state = "select application_name, sync_state from pg_stat_replication"
        asked = ("psql", "-XAtq", "-d", "postgres", "-c")
        eventually(lambda: as_postgres(db1, *asked, state) == "standby|quorum", 60, "a synchronous standby")
        as_postgres(db1, *asked, "create table t as select 1 as number")
        eventually(lambda: db2.run("pg_isready", "-q", "-p", PORT, check=False).returncode == 0, what="the standby")
        assert as_postgres(db2, *asked, "select pg_is_in_recovery()") == "t"
        eventually(lambda: as_postgres(db2, *asked, "select count(*) from pg_class where relname = 't'") == "1")
        assert (
            as_postgres(db1, *asked, "select active from pg_replication_slots where slot_name = 'nllbd_standby'") == "t"
        )
    finally:
        for host in (db2, db1):
            host.systemctl("stop", "container.service", check=False)


def test_a_restarted_standby_copies_nothing_again(site: Site) -> None:
    services = yaml.safe_load((COMPOSE / "compose.yml").read_text("utf-8"))["services"]
    host = site.hosts["db2"]
    host.run("touch", "/srv/data/a-mark")
    try:
        program = ("bash", "/usr/local/bin/standby.sh")
        start(host, services["standby"], *program, PRIMARY=site.addresses["db1"], PRIMARY_PORT=PORT)
        eventually(lambda: host.run("pg_isready", "-q", "-p", PORT, check=False).returncode == 0, what="the standby")
        assert host.run("test", "-e", "/srv/data/a-mark").returncode == 0
    finally:
        host.systemctl("stop", "container.service", check=False)
