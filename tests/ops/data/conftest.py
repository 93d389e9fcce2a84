"""Three booted hosts on a network of their own: db1 and db2 hold the data, db3 is the Sentinels' third. And a client's
network namespace, `outside`, from which daemons and tests reach them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ops.kit.host import Host
from tests.ops.kit.programs import CHECKOUT, eventually, need, need_root

SHARE = "/usr/local/share/nllbd/deploy"
NETWORK = "10.91.7.0/24"


@dataclass
class Site:
    """Hosts by name, their addresses, and the certificate authority's folder."""

    prefix: str
    ca: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def outside(self) -> str:
        """The network namespace of the daemons."""
        return f"{self.prefix}out"

    def run(self, host: str, script: str, *arguments: str, check: bool = True) -> str:
        """One of deploy/'s scripts on a host; what it wrote to standard output."""
        done = self.hosts[host].run(f"{SHARE}/{script}", *arguments, check=False, timeout=180)
        assert not check or done.returncode == 0, f"{host}: {script}: {done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout + done.stderr

    def logs(self) -> str:
        """What the servers said last, for the message of an assertion."""
        tail = "journalctl -n 15 -o cat -u 'redis*' -u 'postgresql@*'; tail -n 25 /var/log/postgresql/*.log"
        said = {
            name: host.run("bash", "-c", tail, check=False).stdout for name, host in self.hosts.items() if host.is_on
        }
        return "\n".join(f"--- {name}\n{text}" for name, text in said.items())

    def read(self, host: str, path: str) -> str:
        return self.hosts[host].run("cat", path).stdout

    def is_good(self, host: str, script: str) -> bool:
        """Whether one of the status scripts has nothing to complain of."""
        return self.hosts[host].run(f"{SHARE}/{script}", check=False).returncode == 0

    def sql(self, host: str, query: str) -> str:
        """An answer of a host's PostgreSQL, asked as its superuser."""
        command = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "psql", "-XAtq", "-d")
        done = self.hosts[host].run(*command, "nllbd", "-c", query)
        return done.stdout.strip()

    def fetch(self, url: str) -> str:
        """What a URL within the daemons' namespace says; empty when nothing does."""
        command = ["ip", "netns", "exec", self.outside, "curl", "-s", "-m", "5", url]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def cut_off(self, host: str) -> None:
        """Nothing reaches it any more, and nothing answers in its name: as when its machine is gone."""
        subprocess.run(["ip", "-n", self.outside, "link", "set", f"to-{host}", "down"], check=True)

    def reconnect(self, host: str) -> None:
        subprocess.run(["ip", "-n", self.outside, "link", "set", f"to-{host}", "up"], check=True)


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Booted, with deploy/ and certificates in place; nothing is set up on them yet."""
    need_root()
    need("redis-server", "redis-sentinel", "psql", "initdb", "ip", "openssl")
    site = Site(f"nd{os.getpid() % 10000}-", tmp_path_factory.mktemp("ca"))
    with contextlib.ExitStack() as stack:
        _make_network(site, ("db1", "db2", "db3"), stack)
        issue(site, "init")
        with ThreadPoolExecutor() as pool:
            hosts = list(pool.map(lambda name: Host(name, netns=f"{site.prefix}{name}"), site.addresses))
            for host in hosts:
                stack.callback(host.stop)
            list(pool.map(Host.boot, hosts))
        for host in hosts:
            site.hosts[host.name] = host
            _furnish(site, host)
        yield site


def _make_network(site: Site, names: tuple[str, ...], stack: contextlib.ExitStack) -> None:
    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    def add(netns: str) -> None:
        ip("netns", "add", netns)
        stack.callback(subprocess.run, ["ip", "netns", "delete", netns], check=False)
        ip("-n", netns, "link", "set", "lo", "up")

    add(site.outside)
    ip("-n", site.outside, "link", "add", "name", "bridge0", "type", "bridge")
    ip("-n", site.outside, "addr", "add", "10.91.7.9/24", "dev", "bridge0")
    ip("-n", site.outside, "link", "set", "bridge0", "up")
    for number, name in enumerate(names, 1):
        netns = f"{site.prefix}{name}"
        add(netns)
        peer = f"to-{name}"
        ip("-n", site.outside, "link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", netns)
        ip("-n", site.outside, "link", "set", peer, "master", "bridge0", "up")
        site.addresses[name] = f"10.91.7.{number}"
        ip("-n", netns, "addr", "add", f"10.91.7.{number}/24", "dev", "eth0")
        ip("-n", netns, "link", "set", "eth0", "up")


def issue(site: Site, command: str, *arguments: str) -> None:
    program = str(CHECKOUT / "deploy/lib/internal-ca")
    subprocess.run([program, command, "--folder", str(site.ca), *arguments], check=True, capture_output=True)


def _furnish(site: Site, host: Host) -> None:
    for part in ("lib", "redis", "postgres", "storage"):
        host.copy(CHECKOUT / "deploy" / part, f"{SHARE}/{part}")
    issue(site, "issue", "--name", host.name, "--san", f"IP:{site.addresses[host.name]}", "--san", "IP:127.0.0.1")
    host.copy(site.ca / host.name, "/root/tls")
    host.write("/etc/hosts", f"127.0.0.1 localhost\n{site.addresses[host.name]} {host.name}\n")


@pytest.fixture(scope="package")
def redis(site: Site) -> Site:
    """Two Redis hosts and a witness, set up by the scripts in the README's order."""
    scripts = "redis/bin"
    secrets = "/etc/redis/nllbd/secrets"
    names = ("nllbd", "replica", "sentinel", "backup", "exporter", "admin")
    site.run("db1", f"{scripts}/make-users", "--secrets", secrets, "--out", "/tmp", "--owner", "root:root")
    for name in names:
        for host in ("db2", "db3"):
            site.hosts[host].write(f"{secrets}/{name}", site.read("db1", f"{secrets}/{name}"), 0o600)
    primary = site.addresses["db1"]
    common = ("--tls", "/root/tls", "--sentinel", "2", "--down-after-ms", "1500", "--maxmemory", "64mb")
    for host in site.hosts.values():  # as where the package was just installed
        host.systemctl("start", "redis-sentinel.service")
    site.run("db1", f"{scripts}/setup-redis", "--bind", primary, *common)
    site.run("db2", f"{scripts}/setup-redis", "--bind", site.addresses["db2"], "--primary", primary, *common)
    witness = ("--bind", site.addresses["db3"], "--primary", primary, "--only-sentinel")
    site.run("db3", f"{scripts}/setup-redis", *witness, *common)
    eventually(
        lambda: site.run("db1", "redis/bin/redis-status", check=False).count("OK 3 usable Sentinels") == 2,
        what="the Sentinels have found each other",
    )
    eventually(lambda: site.is_good("db1", "redis/bin/redis-status"), what="redis-status is good")
    return site


@pytest.fixture(scope="package")
def postgres(site: Site) -> Site:
    """A primary with a synchronous standby, set up by the scripts in the README's order."""
    scripts = "postgres/bin"
    common = ("--tls", "/root/tls", "--network", NETWORK)
    db1, db2 = site.addresses["db1"], site.addresses["db2"]
    site.run("db1", f"{scripts}/pg-setup-primary", "--bind", db1, "--peer", db2, *common)
    secret = "/etc/postgresql/secrets/replicator"
    site.hosts["db2"].write(secret, site.read("db1", secret), 0o600)
    site.run("db2", f"{scripts}/pg-setup-standby", "--bind", db2, "--primary", db1, *common)
    site.run("db1", f"{scripts}/pg-sync", "on", "--standby", "db2")
    return site
