"""What the deployment guide says of Redis and PostgreSQL, tried: each test shows its form failing, and ours not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nllbd.redis_client import RedisAway, RedisLink
from nllbd.redis_wire import make_pool, round_trip
from tests.ops.kit.programs import CHECKOUT, need
from tests.store.postgres import Cluster, find_programs

DEPLOY = CHECKOUT / "deploy"
WITHIN_S = 30.0


def settings_of(name: str) -> dict[str, str]:
    """Directives of one of our Redis configurations, without those that it includes."""
    lines = (DEPLOY / "redis" / name).read_text("utf-8").splitlines()
    pairs = (line.split(" ", 1) for line in lines if line and not line.startswith(("#", "include", "rename-command")))
    return {key: value.strip('"') for key, value in pairs}


async def ask(url: str, *commands: tuple[str, ...]) -> list[Any]:
    connection = make_pool(url).make_connection()
    try:
        return await round_trip(connection, commands)
    finally:
        await connection.disconnect(nowait=True)


async def test_a_snapshot_is_ignored_under_appendonly(start_redis: Any) -> None:
    """The stack file says `--appendonly yes`; its backup copies dump.rdb, and its restore puts that back."""
    server = start_redis()
    await ask(server.url, ("SET", "nllbd:segment:a", "kept"), ("SAVE",))
    server.kill()
    server.options["appendonly"] = "yes"
    server.start()
    assert await ask(server.url, ("GET", "nllbd:segment:a")) == [None]
    server.kill()
    ours = settings_of("cache.conf")
    assert ours["appendonly"] == "no"
    (server.folder / "dump.rdb").rename(server.folder / ours["dbfilename"])
    server.options |= {"appendonly": "no", "dbfilename": ours["dbfilename"]}
    server.start()
    # the server that ignored the snapshot overwrote nothing: it was killed
    assert await ask(server.url, ("GET", "nllbd:segment:a")) == [b"kept"]


async def test_one_instance_for_all_evicts_the_buckets(start_redis: Any) -> None:
    """`maxmemory-policy allkeys-lru`, and one REDIS_URL for cache and limits."""
    fill = "for i = 1, 1000 do redis.call('SET', KEYS[1] .. i, string.rep('x', 500)) end"
    fills = [("EVAL", fill, "1", f"nllbd:segment:{part}:") for part in range(8)]
    buckets = [("SET", f"{{nllbd-rate}}:{number}", "1", "PX", "600000") for number in range(200)]

    async def surviving(policy: str) -> int:
        server = start_redis(maxmemory="3mb", maxmemory_policy=policy)
        await ask(server.url, *buckets, *fills)
        kept = await ask(server.url, ("EXISTS", *(bucket[1] for bucket in buckets)))
        return int(kept[0])

    assert await surviving("allkeys-lru") < 200
    assert await surviving(settings_of("rates.conf")["maxmemory-policy"]) == 200


async def test_a_full_disk_makes_the_guide_s_cache_read_only(start_redis: Any) -> None:
    """`stop-writes-on-bgsave-error yes`; a folder that is gone stands for a disk that is full."""

    async def write_after_a_failed_snapshot(choice: str) -> Any:
        server = start_redis(save="3600 1", stop_writes_on_bgsave_error=choice)
        shutil.rmtree(server.folder)
        await ask(server.url, ("SET", "a", "1"), ("BGSAVE",))
        async with asyncio.timeout(WITHIN_S):
            while b"rdb_last_bgsave_status:err" not in (await ask(server.url, ("INFO", "persistence")))[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return (await ask(server.url, ("SET", "a", "2")))[0]

    assert (await write_after_a_failed_snapshot("yes")).code == "MISCONF"
    assert await write_after_a_failed_snapshot(settings_of("cache.conf")["stop-writes-on-bgsave-error"]) == b"OK"


async def test_a_blocking_client_stops_the_whole_daemon(start_redis: Any) -> None:
    """`redis_client.get()` of the guide's `async def wrapper`, while Redis hangs: nothing else runs."""
    import redis

    server = start_redis()
    blocking = redis.Redis(port=server.port, socket_timeout=0.5, retry=None)
    link = RedisLink(server.url, timeout_s=0.025)
    link.start()
    assert await link.wait_up(WITHIN_S)
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(RedisAway):
            await link.call("GET", "a")
        ours, longest = longest, 0.0
        await asyncio.sleep(0)
        with pytest.raises(redis.TimeoutError):
            blocking.get("a")
        await asyncio.sleep(0.02)
    finally:
        server.signal(signal.SIGCONT)
        heart.cancel()
        await link.close()
    assert longest >= 0.5 > ours


def test_the_guide_s_cache_key_knows_no_model_and_no_caller() -> None:
    """md5 of the keyword arguments: FastAPI hands over an object, which JSON refuses; as a dictionary it lacks half."""

    def guide_s_key(**kwargs: Any) -> str:
        return hashlib.md5(json.dumps(kwargs, sort_keys=True).encode(), usedforsecurity=False).hexdigest()

    class TranslationRequest:
        text = "hello"

    with pytest.raises(TypeError, match="not JSON serializable"):
        guide_s_key(request=TranslationRequest())
    # one key whoever asks, whichever model and version of the code answers
    assert guide_s_key(request={"text": "hello"}) == guide_s_key(request={"text": "hello"})


def test_a_password_in_the_environment_is_read_by_others() -> None:
    """`POSTGRES_PASSWORD: ${DB_PASSWORD}`: in `docker inspect`, in every child, in /proc."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "POSTGRES_PASSWORD": "in-clear"}) as process:
        try:
            child = Path(f"/proc/{process.pid}/environ")
            end = time.monotonic() + WITHIN_S
            while b"POSTGRES_PASSWORD=in-clear" not in child.read_bytes():
                assert time.monotonic() < end
        finally:
            process.kill()
    services = yaml.safe_load((DEPLOY / "postgres/compose/compose.yml").read_text("utf-8"))["services"]
    for service in services.values():
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or (name.endswith("_FILE") and value.startswith("/run/secrets/"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    programs = find_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL")
    cluster = Cluster(programs)
    yield cluster
    cluster.remove()


@pytest.mark.ops
def test_the_guide_s_standby_waits_for_a_slot_that_nobody_makes(cluster: Cluster) -> None:
    """`until pg_basebackup … --slot=replication_slot`: for ever."""
    primary = cluster.make_primary()
    common = ("-h", "127.0.0.1", "-p", primary.port, "-U", "nllb", "-R")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        cluster.run("pg_basebackup", *common, "--pgdata", cluster.folder / "standby", "--slot=replication_slot")
    assert 'replication slot "replication_slot" does not exist' in str(failed.value.output)
    script = (DEPLOY / "postgres/compose/standby.sh").read_text("utf-8")
    assert '--create-slot --slot="$SLOT"' in script
    cluster.run(
        "pg_basebackup", *common, "--pgdata", cluster.folder / "standby", "--create-slot", "--slot=nllbd_standby"
    )
    assert primary.query("select slot_name from pg_replication_slots") == "nllbd_standby"


def test_the_guide_s_standby_would_run_as_root(tmp_path: Path) -> None:
    """Its command is `bash -c`, so the image's entrypoint does not change the user; PostgreSQL refuses root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = need("postgres")["postgres"]
    done = subprocess.run([str(program), "-D", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert '"root" execution of the PostgreSQL server is not permitted' in done.stderr
    standby = yaml.safe_load((DEPLOY / "postgres/compose/compose.yml").read_text("utf-8"))["services"]["standby"]
    assert standby["user"] == "postgres"
