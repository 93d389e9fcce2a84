"""pgBackRest on a booted host: archive, backup by the timer's unit, its metrics, and a restore to a moment."""

from __future__ import annotations

import time

import pytest

from tests.ops.data.conftest import NETWORK, SHARE, Site
from tests.ops.kit.programs import eventually, need

pytestmark = pytest.mark.ops
BIN = "postgres/bin"
METRICS = "/var/lib/prometheus/node-exporter/nllbd_pgbackrest.prom"


@pytest.fixture(scope="module")
def backed_up(site: Site) -> Site:
    """A primary on db3, its repository a folder, one full backup."""
    need("pgbackrest")
    host = site.hosts["db3"]
    site.run(
        "db3", f"{BIN}/pg-setup-primary", "--bind", site.addresses["db3"], "--tls", "/root/tls", "--network", NETWORK
    )
    host.run("install", "-d", "-o", "postgres", "-m", "0750", "/srv/pgbackrest")
    site.run("db3", f"{BIN}/pg-setup-backup", "--repository", f"{SHARE}/postgres/pgbackrest/repository-posix.conf")
    site.sql("db3", "create table orders as select generate_series(1, 1000) as number")
    host.systemctl("start", "nllbd-pgbackrest@full.service", timeout=120)
    return site


def test_the_timers_wait_and_the_metrics_are_there(backed_up: Site) -> None:
    host = backed_up.hosts["db3"]
    assert "nllbd-pgbackrest@full.timer" in host.systemctl("list-timers", "--all").stdout
    assert "nllbd-pgbackrest@diff.timer" in host.systemctl("list-timers", "--all").stdout
    host.systemctl("start", "nllbd-pgbackrest@diff.service", timeout=120)
    values = dict(line.rsplit(" ", 1) for line in host.run("cat", METRICS).stdout.splitlines())
    for kind in ("full", "diff"):
        at = float(values[f'nllbd_backup_last_success_timestamp_seconds{{kind="pgbackrest-{kind}"}}'])
        assert abs(at - time.time()) < 300
        assert float(values[f'nllbd_backup_size_bytes{{kind="pgbackrest-{kind}"}}']) > 0
        assert f'nllbd_backup_duration_seconds{{kind="pgbackrest-{kind}"}}' in values


def test_the_repository_tells_nothing_to_whoever_finds_it(backed_up: Site) -> None:
    host = backed_up.hosts["db3"]
    files = host.run("find", "/srv/pgbackrest", "-type", "f", "-size", "+8k").stdout.split()
    assert files
    head = host.run("head", "-c", "8", files[0]).stdout
    assert head.startswith("Salted__"), "encrypted, whatever the store does"
    assert host.run("stat", "-c", "%a %U", "/etc/pgbackrest/conf.d/secrets.conf").stdout.strip() == "600 postgres"


def test_back_to_the_moment_before_the_mistake(backed_up: Site) -> None:
    host = backed_up.hosts["db3"]
    backed_up.sql("db3", "select pg_sleep(2)")  # a moment in the last whole second of the backup is none
    backed_up.sql("db3", "insert into orders values (7777)")
    moment = backed_up.sql("db3", "select clock_timestamp()")
    backed_up.sql("db3", "delete from orders")
    backed_up.sql("db3", "select pg_switch_wal()")
    eventually(
        lambda: backed_up.sql("db3", "select last_archived_time > now() - interval '1 minute' from pg_stat_archiver")
    )
    backed_up.run("db3", f"{BIN}/pg-restore", "--time", moment)
    assert backed_up.sql("db3", "select count(*), max(number) from orders") == "1001|7777"
    assert host.run("test", "-d", "/var/lib/postgresql/15/main.before-restore").returncode == 0
    again = backed_up.run("db3", f"{BIN}/pg-restore", "--latest", check=False)
    assert "from an earlier restore" in again, "and nothing was stopped or deleted"
    assert backed_up.sql("db3", "select 1") == "1"
