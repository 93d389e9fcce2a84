"""deploy/redis on booted hosts, in Debian's own units: users, TLS, denied commands, eviction, and a failover that
daemons follow while they translate.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ops.data.conftest import SHARE, Site
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops
AS = f"{SHARE}/redis/bin/redis-as"
CACHE, RATES, SENTINEL = "6379", "6380", "26379"
#: down-after-milliseconds of the test (1.5 s), the Sentinels' vote, and the daemon's own way back.
FOLLOWS_WITHIN_S = 30.0


def ask(site: Site, host: str, port: str, *command: str, user: str = "admin") -> str:
    """What Redis answers, errors included."""
    done = site.hosts[host].run(AS, "--user", user, "--port", port, *command, check=False)
    return (done.stdout + done.stderr).strip()


def test_the_scripts_say_that_all_is_well(redis: Site) -> None:
    said = redis.run("db1", "redis/bin/redis-status")
    assert said.count("OK 3 usable Sentinels") == 2
    assert "1 replicas, " in said
    assert "of 64.00M used" in said
    assert "of 256.00M used" in said
    again = redis.run("db2", "redis/bin/setup-redis", "--bind", redis.addresses["db2"], "--tls", "/root/tls")
    assert again.count("left alone") == 2, "a second run changes nothing that Sentinel wrote"


@pytest.mark.parametrize(
    ("user", "command", "answer"),
    [
        ("nllbd", ("SET", "nllbd:segment:t", "x"), "OK"),
        ("nllbd", ("GET", "somebody:else"), "NOPERM"),
        ("nllbd", ("EVAL", "return redis.call('GET', 'other')", "0"), "ERR"),
        ("nllbd", ("CONFIG", "GET", "maxmemory"), "NOPERM"),
        ("nllbd", ("ACL", "LIST"), "NOPERM"),
        ("nllbd", ("REPLICAOF", "NO", "ONE"), "NOPERM"),
        ("exporter", ("GET", "nllbd:segment:t"), "NOPERM"),
        ("replica", ("INFO",), "NOPERM"),
        ("backup", ("LASTSAVE",), "1"),
        ("admin", ("FLUSHALL",), "ERR unknown command"),
        ("admin", ("FLUSHDB",), "ERR unknown command"),
        ("admin", ("KEYS", "*"), "ERR unknown command"),
        ("admin", ("DEBUG", "SLEEP", "0"), "ERR unknown command"),
        ("admin", ("MODULE", "LIST"), "ERR unknown command"),
        ("admin", ("CONFIG", "SET", "dbfilename", "authorized_keys"), "ERR"),
    ],
)
def test_who_may_do_what(redis: Site, user: str, command: tuple[str, ...], answer: str) -> None:
    assert ask(redis, "db1", CACHE, *command, user=user).startswith(answer)


def test_nobody_comes_in_without_password_or_tls(redis: Site) -> None:
    host = redis.hosts["db2"]
    tls = ("redis-cli", "-h", redis.addresses["db1"], "--tls", "--cacert", "/etc/redis/tls/ca.crt")
    assert "NOAUTH" in host.run(*tls, "PING", check=False).stdout
    plain = host.run("redis-cli", "-h", redis.addresses["db1"], "PING", check=False)
    assert "PONG" not in plain.stdout + plain.stderr
    assert "NOAUTH" in host.run(*tls, "-p", SENTINEL, "SENTINEL", "MASTERS", check=False).stdout
    port = f"{redis.addresses['db1']}:6379"
    stranger = host.run("openssl", "s_client", "-connect", port, "-verify_return_error", check=False, input="")
    assert stranger.returncode != 0, "a certificate of our own authority, which the system's list does not know"


def test_secrets_are_in_no_command_line_and_no_log(redis: Site) -> None:
    secrets = [redis.read("db1", f"/etc/redis/nllbd/secrets/{name}").strip() for name in ("nllbd", "admin", "sentinel")]
    for name in ("db1", "db2"):
        host = redis.hosts[name]
        said = host.run("journalctl", "--no-pager", "-o", "cat").stdout + host.run("ps", "-eo", "args").stdout
        assert not [secret for secret in secrets if secret in said]
        readable = host.run("setpriv", "--reuid=nobody", "--clear-groups", "ls", "/etc/redis", check=False)
        assert readable.returncode != 0


def fill(site: Site, port: str) -> list[str]:
    """Ten megabytes, a megabyte a call: within one script Redis does not look at its memory again."""
    script = "for i = 1, 2000 do redis.call('SET', KEYS[1] .. i, string.rep('x', 500)) end return 'filled'"
    return [ask(site, "db1", port, "EVAL", script, "1", f"nllbd:segment:{part}:") for part in range(10)]


def test_the_cache_forgets_and_the_buckets_do_not(redis: Site) -> None:
    bucket = ("SET", "{nllbd-rate}:somebody", "1", "PX", "600000")
    assert ask(redis, "db1", RATES, *bucket, user="nllbd") == "OK"
    try:
        for port in (CACHE, RATES):
            # it counts as used, and grows with what is written: nothing could be evicted for it in so small a memory
            assert ask(redis, "db1", port, "CONFIG", "SET", "repl-backlog-size", "100kb") == "OK"
            used = int(re.findall(r"used_memory:(\d+)", ask(redis, "db1", port, "INFO", "memory"))[0])
            assert ask(redis, "db1", port, "CONFIG", "SET", "maxmemory", str(used + 2_000_000)) == "OK"
        assert set(fill(redis, CACHE)) == {"filled"}
        evicted = re.findall(r"evicted_keys:(\d+)", ask(redis, "db1", CACHE, "INFO", "stats"))
        assert int(evicted[0]) > 5_000
        assert fill(redis, RATES)[-1].startswith("OOM")
        assert ask(redis, "db1", RATES, "GET", "{nllbd-rate}:somebody", user="nllbd") == "1"
        assert "evicted_keys:0" in ask(redis, "db1", RATES, "INFO", "stats")
    finally:
        for port, size in ((CACHE, "64mb"), (RATES, "256mb")):
            ask(redis, "db1", port, "CONFIG", "SET", "repl-backlog-size", "64mb")
            ask(redis, "db1", port, "CONFIG", "SET", "maxmemory", size)


def test_a_restarted_cache_is_warm_from_its_snapshot(redis: Site) -> None:
    assert ask(redis, "db1", CACHE, "SET", "nllbd:segment:kept", "warm", user="nllbd") == "OK"
    redis.hosts["db1"].systemctl("restart", "redis-server@cache.service")
    eventually(
        lambda: ask(redis, "db1", CACHE, "GET", "nllbd:segment:kept", user="nllbd") == "warm", what="the snapshot"
    )
    assert redis.hosts["db1"].run("test", "-s", "/var/lib/redis/dump-cache.rdb").returncode == 0
    eventually(lambda: redis.is_good("db1", "redis/bin/redis-status"), what="all is well again")


def test_a_backup_copies_the_cache_from_another_host(redis: Site) -> None:
    """As `nllbd ops backup` does, by the URL of the README; the daemon's own user may not."""
    assert ask(redis, "db1", CACHE, "SET", "nllbd:segment:saved", "of-the-backup", user="nllbd") == "OK"
    done = copied(redis, "backup")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["dump-cache.rdb", "True"]
    assert "backup_redis_url" in copied(redis, "nllbd").stderr


def copied(site: Site, user: str) -> subprocess.CompletedProcess[str]:
    def secret(name: str) -> str:
        return site.read("db1", f"/etc/redis/nllbd/secrets/{name}").strip()

    sentinels = ",".join(site.addresses.values())
    url = f"rediss+sentinel://{user}:{secret(user)}@{sentinels}/nllbd-cache/0?ssl_ca_certs={site.ca}/ca.crt"
    url += f"&sentinel_username=nllbd&sentinel_password={secret('nllbd')}"
    program = (
        "import sys; from nllbd.ops.backup.redis import RedisCopy, RedisServer;"
        "copy = RedisCopy(RedisServer.from_url(sys.stdin.read()));"
        "print(copy.details['dbfilename'], b'of-the-backup' in b''.join(copy.chunks()))"
    )
    command = ["ip", "netns", "exec", site.outside, sys.executable, "-c", program]
    return subprocess.run(command, input=url, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def daemons(redis: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Two, which share cache and limits through the Sentinels."""
    tmp_path = tmp_path_factory.mktemp("daemons")
    password = redis.read("db1", "/etc/redis/nllbd/secrets/nllbd").strip()
    hosts = ",".join(redis.addresses.values())
    more = f"sentinel_username=nllbd&sentinel_password={password}&ssl_ca_certs={redis.ca}/ca.crt"
    files = [tmp_path / name for name in ("cache_url", "rates_url", "cache_secret")]
    urls = [f"rediss+sentinel://nllbd:{password}@{hosts}/nllbd-{name}/0?{more}" for name in ("cache", "rates")]
    for file, secret in zip(files, [*urls, "a secret of both"], strict=True):
        file.write_text(secret)
    settings: dict[str, Any] = {"redis_url_file": files[0], "rate_limit_redis_url_file": files[1]}
    settings |= {"cache_secret_file": files[2], "cache_ttl_s": 600}
    settings |= {"rate_limit_per_minute": 60_000, "rate_limit_burst": 10_000, "cache_max_items": 0}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Daemon(folder=tmp_path / "one", netns=redis.outside, **settings) as one,
        Daemon(folder=tmp_path / "two", netns=redis.outside, **settings) as two,
    ):
        yield [one, two]


def sentence(number: int) -> dict[str, Any]:
    """A sentence of its own each: each is an entry of the cache."""
    return {"text": f"It rains on day {number} of the year.", "source_lang": "en", "target_lang": "fr"}


def links_up(site: Site, daemon: Daemon) -> bool:
    page = site.fetch(daemon.metrics_url)
    return {'nllbd_redis_up{link="redis"} 1.0', 'nllbd_redis_up{link="rates"} 1.0'} <= set(page.splitlines())


def test_what_one_daemon_translated_the_other_has(redis: Site, daemons: list[Daemon]) -> None:
    for daemon in daemons:
        eventually(lambda d=daemon: links_up(redis, d), what="Redis")
    translate(redis, daemons[0], "One host did this.")
    eventually(lambda: translate(redis, daemons[1], "One host did this.")["usage"]["cached_segments"] == 1)


def test_daemons_follow_when_the_primary_s_machine_is_gone(
    redis: Site, daemons: list[Daemon], record_property: Callable[[str, object], None]
) -> None:
    for daemon in daemons:
        eventually(lambda d=daemon: links_up(redis, d), what="the daemon reaches Redis through the Sentinels")
    with (
        Traffic(daemons[0].url, clients=2, netns=redis.outside, echoes=True, body=sentence) as one,
        Traffic(daemons[1].url, clients=2, netns=redis.outside, echoes=True, body=sentence) as two,
    ):
        one.wait_for(50)
        two.wait_for(50)
        redis.cut_off("db1")
        began = time.monotonic()
        try:
            eventually(lambda: "10.91.7.2" in master_of(redis, "db3"), what="the Sentinels agree")
            for daemon in daemons:
                eventually(lambda d=daemon: links_up(redis, d), FOLLOWS_WITHIN_S, "the daemon follows")
            record_property("daemons_without_redis_s", round(time.monotonic() - began, 1))
            before = ask(redis, "db2", CACHE, "DBSIZE")
            one.wait_for(100)
            two.wait_for(100)
        finally:
            redis.reconnect("db1")
    for traffic in (one, two):
        assert not traffic.failed, traffic.report()
        assert max(traffic.latencies) < 5.0, "nobody waits for a Redis that is gone"
    eventually(lambda: ask(redis, "db2", CACHE, "DBSIZE") != before, what="entries in the new primary")
    assert ask(redis, "db2", RATES, "DBSIZE") != "0", "buckets are shared again"
    eventually(lambda: redis.is_good("db3", "redis/bin/redis-status"), 60, "the old primary follows the new one")
    assert ask(redis, "db1", CACHE, "ROLE").startswith("slave")


def master_of(site: Site, host: str) -> str:
    return ask(site, host, SENTINEL, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "nllbd-cache")


def translate(site: Site, daemon: Daemon, text: str) -> dict[str, Any]:
    body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr"})
    command = ["ip", "netns", "exec", site.outside, "curl", "-s", "-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run([*command, f"{daemon.url}/translate"], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_a_planned_handover(redis: Site, daemons: list[Daemon]) -> None:
    eventually(lambda: redis.is_good("db3", "redis/bin/redis-status"), 60, "all is well before")
    with Traffic(daemons[0].url, clients=2, netns=redis.outside, echoes=True) as traffic:
        traffic.wait_for(20)
        said = redis.run("db3", "redis/bin/redis-failover", "--name", "rates", "--host", "127.0.0.1")
        traffic.wait_for(20)
    assert "is it now" in said
    assert not traffic.failed, traffic.report()


def test_a_password_rotates_without_a_gap(redis: Site) -> None:
    """docs/operations/rotation.md: both while daemons change over, then the new one alone, Sentinels included."""
    folder, new = "/etc/redis/nllbd/secrets", "another-password-of-nllbd"
    digest = hashlib.sha256(new.encode()).hexdigest()
    ports = {"db1": (CACHE, RATES, SENTINEL), "db2": (CACHE, RATES, SENTINEL), "db3": (SENTINEL,)}
    for name, host in redis.hosts.items():
        host.run("install", "-D", "-m", "600", f"{folder}/nllbd", "/root/old/nllbd")
        host.write("/root/new/nllbd", new, 0o600)
        for port in ports[name]:
            assert ask(redis, name, port, "ACL", "SETUSER", "nllbd", f"#{digest}") == "OK"
            assert {pings(redis, name, port, secrets) for secrets in ("/root/old", "/root/new")} == {True}
    for name, host in redis.hosts.items():
        host.write(f"{folder}/nllbd", new, 0o600)
        kind = ("--primary", redis.addresses["db1"], "--only-sentinel") if name == "db3" else ()
        bind = ("--bind", redis.addresses[name], "--tls", "/root/tls", "--sentinel", "2")
        redis.run(name, "redis/bin/setup-redis", *bind, *kind)
        for port in ports[name]:
            assert pings(redis, name, port, "/root/new")
            assert not pings(redis, name, port, "/root/old")


def pings(site: Site, host: str, port: str, secrets: str) -> bool:
    command = (AS, "--user", "nllbd", "--port", port, "--secrets", secrets, "PING")
    return "PONG" in site.hosts[host].run(*command, check=False).stdout
