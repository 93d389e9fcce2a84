"""deploy/postgres on booted hosts, in Debian's own units: a primary whose machine loses its power while daemons
translate, promotion, the old primary that comes back, rewind. And what was booked, to the character.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.data.conftest import Site
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import CHECKOUT, eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops
BIN = "postgres/bin"
UNIT = "postgresql@15-main.service"


def test_a_synchronous_standby_and_all_is_well(postgres: Site) -> None:
    said = postgres.run("db1", f"{BIN}/pg-status")
    assert 'commits wait for: ANY 1 ("db2")' in said
    assert "streaming, quorum" in said
    assert "slot nllbd_db2: reserved" in said
    assert "standby db2 of 10.91.7.1" in postgres.run("db2", f"{BIN}/pg-status")
    assert postgres.sql("db1", "show data_checksums") == "on"


def test_only_tls_and_scram(postgres: Site) -> None:
    host, db1 = postgres.hosts["db2"], postgres.addresses["db1"]
    secret = postgres.read("db1", "/etc/postgresql/secrets/nllbd").strip()
    host.write("/root/.pgpass", f"*:*:*:*:{secret}\n", 0o600)
    base = f"host={db1} user=nllbd dbname=nllbd connect_timeout=10"
    verified = f"{base} sslmode=verify-full sslrootcert=/etc/postgresql/tls/ca.crt"
    answer = host.run("psql", "-XAtqd", verified, "-c", "select version from pg_stat_ssl where pid = pg_backend_pid()")
    assert answer.stdout.startswith("TLSv1.")
    for wrong in (f"{base} sslmode=disable", verified.replace("user=nllbd", "user=postgres")):
        refused = host.run("psql", "-XAtqd", wrong, "-c", "select 1", check=False)
        assert "pg_hba.conf rejects" in refused.stderr
    assert postgres.sql("db1", "select bool_and(rolpassword like 'SCRAM-%') from pg_authid where rolcanlogin") == "t"
    super_users = postgres.sql("db1", "select string_agg(rolname, ',') from pg_roles where rolsuper and rolcanlogin")
    assert super_users == "postgres", "and it has no password: only the local socket"


def test_secrets_are_in_no_log_and_no_connection_string(postgres: Site) -> None:
    for name in ("nllbd", "replicator", "backup", "exporter"):
        secret = postgres.read("db1", f"/etc/postgresql/secrets/{name}").strip()
        found = 'grep -rlF "$1" /var/log /etc /var/lib/postgresql /run 2>/dev/null; journalctl -o cat | grep -cF "$1"'
        said = postgres.hosts["db1"].run("bash", "-c", found, "bash", secret, check=False).stdout.splitlines()
        allowed = {f"/etc/postgresql/secrets/{name}", "/etc/postgresql/nllbd.pgpass", "0"}
        assert set(said) <= allowed


@pytest.fixture(scope="module")
def daemons(postgres: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Two; their database is whichever host takes writes."""
    folder = tmp_path_factory.mktemp("daemons")
    secret = postgres.read("db1", "/etc/postgresql/secrets/nllbd").strip()
    hosts = ",".join(postgres.addresses[name] for name in ("db1", "db2"))
    url = f"postgresql+asyncpg://nllbd:{secret}@{hosts}/nllbd?sslmode=verify-full&sslrootcert={postgres.ca}/ca.crt"
    (folder / "database_url").write_text(url)
    for name in ("one", "two"):
        (folder / name).mkdir()
    settings = {"database_url_file": folder / "database_url", "netns": postgres.outside}
    with Daemon(folder=folder / "one", **settings) as one, Daemon(folder=folder / "two", **settings) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def key(postgres: Site, daemons: list[Daemon]) -> str:
    program = [
        "ip",
        "netns",
        "exec",
        postgres.outside,
        sys.executable,
        "-m",
        "nllbd",
        "keys",
        "create",
        "load",
        "--json",
    ]
    url = ["--database-url-file", str(daemons[0].settings["database_url_file"])]
    made = subprocess.run([*program, *url], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["key"])


def booked(site: Site, host: str) -> int:
    return int(site.sql(host, "select coalesce(sum(characters), 0) from usage"))


def answered(*traffics: Traffic) -> int:
    """Characters of all requests that were answered."""
    return sum(
        json.loads(outcome.body)["usage"]["characters"]
        for traffic in traffics
        for outcome in traffic.outcomes
        if outcome.status == 200
    )


def test_a_primary_loses_its_power_and_comes_back(postgres: Site, daemons: list[Daemon], key: str) -> None:
    headers = {"X-API-Key": key}
    one, two = (
        Traffic(daemon.url, clients=2, netns=postgres.outside, echoes=True, headers=headers) for daemon in daemons
    )
    before = booked(postgres, "db1")
    with one, two:
        wait_for(50, one, two)
        eventually(lambda: booked(postgres, "db1") > before, what="usage arrives")

        postgres.cut_off("db1")
        postgres.hosts["db1"].kill()
        wait_for(50, one, two)
        refused = postgres.run("db2", f"{BIN}/pg-failover", check=False)
        assert "does not answer at all" in refused, "it may be alive for others"
        said = postgres.run("db2", f"{BIN}/pg-failover", "--primary-is-dead")
        assert "this host is the primary now" in said
        seen = booked(postgres, "db2")
        wait_for(50, one, two)
        eventually(lambda: booked(postgres, "db2") > seen, what="usage arrives at the new primary")

        # Its power is back: it would be a primary as well, and is the first of the daemons' hosts.
        postgres.reconnect("db1")
        postgres.hosts["db1"].boot()
        assert postgres.hosts["db1"].show(UNIT, "ActiveState") == "failed"
        assert "pg-rewind --primary 10.91.7.2" in json.dumps(postgres.hosts["db1"].journal(UNIT))
        wait_for(20, one, two)
        postgres.run("db1", f"{BIN}/pg-rewind", "--primary", postgres.addresses["db2"])
        postgres.run("db2", f"{BIN}/pg-sync", "on", "--standby", "db1")
        wait_for(20, one, two)

    for traffic in (one, two):
        assert not traffic.failed, traffic.report()
    eventually(lambda: booked(postgres, "db2") - before == answered(one, two), what="all of it is booked")
    eventually(lambda: booked(postgres, "db1") - before == answered(one, two), what="the standby has it, too")
    assert "streaming, quorum" in postgres.run("db2", f"{BIN}/pg-status")


def test_a_backup_asks_the_one_that_takes_writes(postgres: Site, daemons: list[Daemon]) -> None:
    """By the daemons' own URL, whose first host is the standby now: no snapshot could be shared with that."""
    program = (
        "import sys; from pathlib import Path; from nllbd.ops.backup.postgres import PostgresDump, Server;"
        "dump = PostgresDump(Server.from_url(Path(sys.argv[1]).read_text()));"
        "print(b''.join(dump.chunks())[:5].decode(), dump.facts['usage_characters'])"
    )
    command = ["ip", "netns", "exec", postgres.outside, sys.executable, "-c", program]
    command.append(str(daemons[0].settings["database_url_file"]))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PGDMP", str(booked(postgres, "db2"))]


def wait_for(more: int, *traffics: Traffic) -> None:
    for traffic in traffics:
        traffic.wait_for(more)


def test_a_planned_handover_back(postgres: Site, daemons: list[Daemon], key: str) -> None:
    """db2 is primary after the test before: stopped in order, db1 takes over, no --primary-is-dead needed."""
    assert "primary db2" in postgres.run("db2", f"{BIN}/pg-status", check=False), "the failover before ended well"
    before = booked(postgres, "db2")
    with Traffic(daemons[0].url, clients=2, netns=postgres.outside, echoes=True, headers={"X-API-Key": key}) as traffic:
        traffic.wait_for(20)
        answers = postgres.run("db1", f"{BIN}/pg-failover", check=False)
        assert "answers as primary: stop it first" in answers
        postgres.hosts["db2"].systemctl("stop", UNIT)
        postgres.run("db1", f"{BIN}/pg-failover")
        traffic.wait_for(20)
        postgres.run("db2", f"{BIN}/pg-rewind", "--primary", postgres.addresses["db1"])
        postgres.run("db1", f"{BIN}/pg-sync", "on", "--standby", "db2")
    assert postgres.sql("db2", "select count(*) from pg_replication_slots") == "0", "one that nobody reads keeps WAL"
    assert not traffic.failed, traffic.report()
    eventually(lambda: booked(postgres, "db1") - before == answered(traffic), what="all of it is booked")


def test_a_broken_standby_is_cloned_anew(postgres: Site, tmp_path: Path) -> None:
    host = postgres.hosts["db2"]
    host.systemctl("stop", UNIT)
    host.run("rm", "-rf", "/var/lib/postgresql/15/main/base")
    common = ("--bind", postgres.addresses["db2"], "--primary", postgres.addresses["db1"], "--tls", "/root/tls")
    arguments = (*common, "--network", "10.91.7.0/24", "--reclone")
    postgres.run("db2", f"{BIN}/pg-setup-standby", *arguments)
    eventually(lambda: postgres.is_good("db1", f"{BIN}/pg-status"), what="it follows again")
