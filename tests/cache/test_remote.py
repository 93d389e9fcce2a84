"""The cache in a real Redis that is slow, gone, full, lying or written to by others: no error, and no wrong text."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from nllbd import metrics as m
from nllbd.cache import remote as remote_module
from nllbd.cache.entry import Entry, Sealer
from nllbd.cache.remote import PREFIX, Found, RemoteCache, redis_key
from nllbd.metrics import Metrics
from nllbd.redis_client import RedisLink

SECRET = b"a secret of the tests"
FAST_S = 2.0
Eventually = Callable[..., Any]


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def entry(number: int) -> Entry:
    return Entry((f"Satz {number} über Äpfel", f"variant {number}"), ("truncated",))


class Rig:
    """A remote cache, its link and its figures."""

    def __init__(self, link: RedisLink, clock: Any, secret: bytes = SECRET) -> None:
        self.link = link
        self.metrics = Metrics()
        self.clock = clock
        self.cache = RemoteCache(link, Sealer(secret), self.metrics, clock=clock)

    def keep(self, *numbers: int, ttl_s: float = 60.0) -> None:
        for number in numbers:
            self.cache.keep(name(number), entry(number), self.clock() + ttl_s)

    async def find(self, *numbers: int) -> dict[bytes, Found]:
        return await self.cache.find([name(number) for number in numbers])

    def writes(self, result: str) -> float:
        return self.metrics.value(m.CACHE_WRITES, result=result)

    @property
    def damaged(self) -> float:
        return self.metrics.value(m.CACHE_DAMAGED)


@pytest.fixture
async def rig(start_redis: Any, link_to: Any, clock: Any) -> Rig:
    return Rig(await link_to(start_redis().url), clock)


async def test_what_one_host_keeps_another_finds(rig: Rig, eventually: Eventually) -> None:
    other = Rig(rig.link, rig.clock)
    rig.keep(1, 2, 3)
    await eventually(lambda: rig.writes("written") == 3)
    found = await other.find(1, 2, 3, 4)
    assert found == {name(number): Found(entry(number), rig.clock() + 60) for number in (1, 2, 3)}


async def test_redis_forgets_in_time_and_so_do_we(rig: Rig, eventually: Eventually) -> None:
    rig.keep(1, ttl_s=1000.0)
    await eventually(lambda: rig.writes("written") == 1)
    assert 990_000 < await rig.link.call("PTTL", redis_key(name(1))) <= 1_000_000
    rig.clock.now += 999.0
    assert await rig.find(1)
    rig.clock.now += 2.0
    assert not await rig.find(1), "an entry that was kept from expiring in Redis is not used beyond its time"


async def test_neither_names_nor_texts_are_in_the_clear(rig: Rig, eventually: Eventually) -> None:
    rig.keep(1)
    await eventually(lambda: rig.writes("written") == 1)
    (key,) = await rig.link.call("KEYS", "*")
    value = await rig.link.call("GET", key)
    assert key.startswith(PREFIX)
    assert name(1) not in key
    assert not any(word in value for word in (b"Satz", "über".encode(), b"variant", b"truncated"))


async def test_values_that_were_tampered_with_are_misses(rig: Rig, eventually: Eventually) -> None:
    rig.keep(*range(6))
    await eventually(lambda: rig.writes("written") == 6)
    values = await rig.link.call("MGET", *(redis_key(name(number)) for number in range(6)))
    await rig.link.call("SET", redis_key(name(0)), values[1])  # swapped
    await rig.link.call("SET", redis_key(name(1)), values[1][:-1])  # cut
    await rig.link.call("SET", redis_key(name(2)), b"")
    await rig.link.call("SET", redis_key(name(3)), bytes([values[3][0] ^ 1]) + values[3][1:])
    await rig.link.call("DEL", redis_key(name(4)))
    await rig.link.call("RPUSH", redis_key(name(4)), "a list")  # of another type: MGET says nil
    assert set(await rig.find(*range(6))) == {name(5)}
    assert rig.damaged == 4


async def test_values_of_another_secret_are_misses(rig: Rig, eventually: Eventually) -> None:
    rig.keep(1)
    await eventually(lambda: rig.writes("written") == 1)
    stranger = Rig(rig.link, rig.clock, secret=b"another")
    assert not await stranger.find(1)
    assert stranger.damaged == 1


async def test_many_names_are_few_round_trips(
    rig: Rig, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nllbd.cache.remote.LOOKUP_S", 30.0)  # this machine may be busy
    rig.keep(*range(1000))
    await eventually(lambda: rig.writes("written") == 1000)
    before = await count_commands(rig.link, "mget")
    assert len(await rig.find(*range(1000))) == 1000
    assert await count_commands(rig.link, "mget") - before == 8


async def count_commands(link: RedisLink, command: str) -> int:
    stats = (await link.call("INFO", "commandstats")).decode()
    lines = [line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


async def test_what_is_being_asked_for_is_not_asked_for_again(rig: Rig, eventually: Eventually) -> None:
    rig.keep(1, 2, 3)
    await eventually(lambda: rig.writes("written") == 3)
    before = await count_commands(rig.link, "mget")
    answers = await asyncio.gather(*(rig.find(1, 2) for _ in range(20)), rig.find(2, 3))
    assert all(set(found) == {name(1), name(2)} for found in answers[:-1])
    assert set(answers[-1]) == {name(2), name(3)}
    assert await count_commands(rig.link, "mget") - before == 2


async def test_who_asks_along_does_not_depend_on_who_asked_first(rig: Rig, eventually: Eventually) -> None:
    rig.keep(1)
    await eventually(lambda: rig.writes("written") == 1)
    first = asyncio.create_task(rig.find(1))
    await asyncio.sleep(0)
    second = asyncio.create_task(rig.find(1))
    await asyncio.sleep(0)
    first.cancel()
    assert await second in ({}, {name(1): Found(entry(1), rig.clock() + 60)})
    assert await rig.find(1)


async def test_a_paused_redis_costs_a_moment_and_then_nothing(start_redis: Any, link_to: Any, clock: Any) -> None:
    server = start_redis()
    rig = Rig(await link_to(server.url, timeout_s=0.05), clock)
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    while not rig.cache.is_away:
        assert await rig.find(1, 2) == {}
    assert time.monotonic() - began < FAST_S
    rig.keep(1)
    assert rig.writes("dropped") == 1
    server.signal(signal.SIGCONT)


async def test_a_killed_redis_is_a_miss(start_redis: Any, link_to: Any, clock: Any, eventually: Eventually) -> None:
    server = start_redis()
    rig = Rig(await link_to(server.url), clock)
    server.kill()
    rig.keep(1)
    assert await rig.find(1) == {}
    await eventually(lambda: rig.writes("dropped") == 1)
    server.start()
    assert await rig.link.wait_up(30.0)
    rig.keep(1)
    await eventually(lambda: rig.writes("written") == 1)
    assert await rig.find(1)


async def test_a_full_redis_evicts_and_we_miss(
    start_redis: Any, link_to: Any, clock: Any, eventually: Eventually
) -> None:
    server = start_redis(maxmemory="3mb", maxmemory_policy="allkeys-lru")
    rig = Rig(await link_to(server.url), clock)
    for first in range(0, 16_000, 1000):
        rig.keep(*range(first, first + 1000))
        await eventually(lambda end=first + 1000: rig.writes("written") + rig.writes("dropped") == end)
    assert rig.writes("written") == 16_000
    found = await rig.find(*range(15_000, 16_000))
    assert len(found) > 0
    assert all(item.entry == entry(int.from_bytes(key, "big")) for key, item in found.items())
    assert len(await rig.find(*range(1000))) < 1000


async def test_a_full_redis_that_evicts_nothing_refuses(
    start_redis: Any, link_to: Any, clock: Any, eventually: Eventually
) -> None:
    rig = Rig(await link_to(start_redis(maxmemory="1kb", maxmemory_policy="noeviction").url), clock)
    rig.keep(1, 2)
    await eventually(lambda: rig.writes("refused") == 2)
    assert rig.cache._told == {"OOM"}, "an operator is told, once"
    assert await rig.find(1, 2) == {}
    assert not rig.cache.is_away, "reads work: the circuit stays closed"


@pytest.mark.parametrize(
    "reply", [b"+OK\r\n", b":1\r\n", b"*0\r\n", b"*2\r\n:1\r\n*1\r\n:2\r\n", b"-ERR no\r\n", b"$3\r\nabc\r\n"]
)
async def test_strange_replies_are_misses(link_to: Any, clock: Any, reply: bytes) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            answers = data.count(b"CLIENT") + data.count(b"PING")
            writer.write(b"+OK\r\n" * answers + reply * data.count(b"MGET"))

    liar = await asyncio.start_server(lie, "127.0.0.1", 0)
    rig = Rig(await link_to(f"redis://127.0.0.1:{liar.sockets[0].getsockname()[1]}"), clock)
    assert await rig.find(1, 2) == {}
    await rig.link.close()
    liar.close()


async def test_replies_of_the_wrong_request_are_not_believed(
    rig: Rig, link_to: Any, clock: Any, eventually: Eventually
) -> None:
    """A proxy that mixes up connections is the worst case there is: values are bound to their names."""
    rig.keep(1, 2)
    await eventually(lambda: rig.writes("written") == 2)
    stored = await rig.link.call("GET", redis_key(name(1)))

    async def mix_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            answers = data.count(b"CLIENT") + data.count(b"PING")
            answer = b"*1\r\n$%d\r\n%s\r\n" % (len(stored), stored)
            writer.write(b"+OK\r\n" * answers + answer * data.count(b"MGET"))

    proxy = await asyncio.start_server(mix_up, "127.0.0.1", 0)
    other = Rig(await link_to(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"), clock)
    assert await other.find(1)
    assert await other.find(2) == {}
    assert other.damaged == 1
    await other.link.close()
    proxy.close()


async def test_writes_that_pile_up_are_dropped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(remote_module, "_MAX_QUEUED", 10)
    rig.keep(*range(50))
    assert rig.writes("dropped") == 40
    await eventually(lambda: rig.writes("written") == 10)


async def test_memory_of_waiting_writes_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(remote_module, "_MAX_QUEUED_BYTES", 10_000)
    for number in range(50):
        rig.cache.keep(name(number), Entry(("x" * 1000,)), rig.clock() + 60)
    assert rig.writes("dropped") == 48
    await eventually(lambda: rig.writes("written") == 2)
    rig.keep(1)
    await eventually(lambda: rig.writes("written") == 3)


async def test_a_text_that_cannot_be_written_harms_nobody(rig: Rig, eventually: Eventually) -> None:
    rig.cache.keep(name(1), Entry(("\ud800",)), rig.clock() + 60)
    rig.keep(2)
    await eventually(lambda: rig.writes("written") == 1)
    assert set(await rig.find(1, 2)) == {name(2)}


async def test_closing_writes_what_it_can(rig: Rig) -> None:
    rig.keep(*range(100))
    await rig.cache.close()
    assert rig.writes("written") == 100
