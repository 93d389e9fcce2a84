"""deploy/redis on booted hosts, in Debian's own units: users, TLS, denied commands, eviction, and a failover that
daemons follow while they translate.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.data.conftest import SHARE, Site
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops
BIN = "redis/bin"


@pytest.fixture(scope="module")
def redis(site: Site) -> Site:
    """Set up by the scripts, in the README's order."""
    site.run(
        "db1", f"{BIN}/make-users", "--secrets", "/etc/redis/nllbd/secrets", "--out", "/tmp", "--owner", "root:root"
    )
    secrets = {name: _secret(site, name) for name in ("nllbd", "replica", "sentinel", "backup", "exporter", "admin")}
    for host in ("db2", "db3"):
        for name, secret in secrets.items():
            site.hosts[host].write(f"/etc/redis/nllbd/secrets/{name}", secret, 0o600)
    primary = site.addresses["db1"]
    common = ("--tls", "/root/tls", "--sentinel", "2", "--down-after-ms", "1500")
    site.run("db1", f"{BIN}/setup-redis", "--bind", primary, *common)
    site.run("db2", f"{BIN}/setup-redis", "--bind", site.addresses["db2"], "--primary", primary, *common)
    site.run(
        "db3", f"{BIN}/setup-redis", "--bind", site.addresses["db3"], "--primary", primary, "--only-sentinel", *common
    )
    eventually(lambda: _is_good(site), what="redis-status is good")
    return site


def _secret(site: Site, name: str) -> str:
    return site.hosts["db1"].run("cat", f"/etc/redis/nllbd/secrets/{name}").stdout


def _is_good(site: Site) -> bool:
    return site.hosts["db1"].run(f"{SHARE}/{BIN}/redis-status", check=False).returncode == 0


def test_status(redis: Site) -> None:
    said = redis.run("db1", f"{BIN}/redis-status")
    assert said.count("OK 3 usable Sentinels") == 2
