"""Rate limits: whose policy counts, where the bucket is, and that several hosts share one through a real Redis."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nllbd.config import Settings
from nllbd.errors import RateLimited
from nllbd.principal import Principal, anonymous
from nllbd.redis_client import RedisLink
from nllbd.security.gcra import Buckets, Decision, RatePolicy
from nllbd.security.rates import RateLimiter, check
from nllbd.security.redis_buckets import RedisBuckets

ALICE, BOB = Principal(id="key:alice"), Principal(id="key:bob")
MakeLink = Callable[[str], Awaitable[RedisLink]]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(clock: Clock | None = None, **settings: int) -> RateLimiter:
    return RateLimiter(Settings(rate_limit_per_minute=60, rate_limit_burst=2, **settings), clock=clock or Clock())


def charge(rates: RateLimiter, who: Principal) -> Decision | None:
    policy = rates.policy_of(who)
    return rates.charge_here(who, policy) if policy is not None else None


def test_whose_limit_counts() -> None:
    rates = limiter()
    assert rates.policy_of(ALICE) == RatePolicy(60, 2)
    assert rates.policy_of(Principal(id="x", rate_per_minute=6)) == RatePolicy(6, 2)
    assert rates.policy_of(Principal(id="x", rate_per_minute=6, rate_burst=9)) == RatePolicy(6, 9)
    assert rates.policy_of(Principal(id="x", rate_per_minute=0)) is None
    rates.apply(Settings())
    assert rates.policy_of(ALICE) is None
    assert rates.policy_of(Principal(id="x", rate_per_minute=6)) == RatePolicy(6, 20)


def test_each_has_a_bucket_of_its_own_and_time_fills_it() -> None:
    clock = Clock()
    rates = limiter(clock)
    decisions = [charge(rates, ALICE) for _ in range(3)]
    assert [decision.allowed for decision in decisions if decision] == [True, True, False]
    other = charge(rates, BOB)
    assert other is not None
    assert other.allowed
    refused = decisions[2]
    assert refused is not None
    with pytest.raises(RateLimited) as caught:
        check(refused)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    clock.now += 1.0
    again = charge(rates, ALICE)
    assert again is not None
    check(again)


def test_alone_a_host_takes_its_share() -> None:
    rates = limiter(rate_limit_hosts=2)
    decision = charge(rates, ALICE)
    assert decision is not None
    assert decision.policy == RatePolicy(30, 1)


@pytest.fixture
async def make_link() -> AsyncIterator[MakeLink]:
    links: list[RedisLink] = []

    async def make(url: str) -> RedisLink:
        links.append(RedisLink(url, timeout_s=5.0))
        links[-1].start()
        assert await links[-1].wait_up(30)
        return links[-1]

    yield make
    for link in links:
        await link.close()


async def shared_charge(rates: RateLimiter, who: Principal) -> Decision:
    policy = rates.policy_of(who)
    assert policy is not None
    return rates.charge_here(who, policy) or await rates.charge_shared(who, policy)


async def test_hosts_share_a_bucket(start_redis: Any, make_link: MakeLink) -> None:
    url = start_redis().url
    settings = Settings(rate_limit_per_minute=1, rate_limit_burst=10, rate_limit_hosts=2)
    hosts = [RateLimiter(settings, RedisBuckets(await make_link(url))) for _ in range(2)]
    decisions = [await shared_charge(hosts[number % 2], ALICE) for number in range(14)]
    assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 4
    assert [decision.remaining for decision in decisions[:10]] == list(range(9, -1, -1))
    assert decisions[-1].retry_after_us <= 60_000_000
    assert (await shared_charge(hosts[0], BOB)).allowed


async def test_a_known_refusal_costs_redis_nothing(start_redis: Any, make_link: MakeLink) -> None:
    link = await make_link(start_redis().url)
    clock = Clock()
    rates = RateLimiter(Settings(rate_limit_per_minute=1, rate_limit_burst=1), RedisBuckets(link), clock)
    policy = RatePolicy(1, 1)
    assert rates.charge_here(ALICE, policy) is None
    assert (await rates.charge_shared(ALICE, policy)).allowed
    assert not (await rates.charge_shared(ALICE, policy)).allowed
    known = rates.charge_here(ALICE, policy)
    assert known is not None
    assert not known.allowed
    clock.now += 61
    assert rates.charge_here(ALICE, policy) is None


async def test_redis_decides_as_we_do(start_redis: Any, make_link: MakeLink) -> None:
    """The script and `gcra.decide`: the same units left, the same waits up to the time that passed between calls."""
    shared, here = RedisBuckets(await make_link(start_redis().url)), Buckets()
    for number, policy in enumerate((RatePolicy(1, 1), RatePolicy(7, 5), RatePolicy(60, 20), RatePolicy(3, 50))):
        for _ in range(policy.burst + 2):
            theirs, ours = await shared.charge(f"a{number}", policy), here.charge(f"a{number}", policy, 1)
            assert (theirs.allowed, theirs.remaining) == (ours.allowed, ours.remaining)
            assert 0 <= ours.full_after_us - theirs.full_after_us <= 20_000_000
    lowered = await shared.charge("a3", RatePolicy(600, 1))
    assert lowered.retry_after_us <= 100_000


async def test_a_bucket_names_nobody_and_goes_when_it_is_full(start_redis: Any, make_link: MakeLink) -> None:
    link = await make_link(start_redis().url)
    await RedisBuckets(link).charge(anonymous("192.0.2.77").id, RatePolicy(60, 3))
    (name,) = await link.call("KEYS", "*")
    assert b"192.0.2" not in name
    assert 0 < await link.call("PTTL", name) <= 1000


async def test_without_redis_each_host_takes_its_share_and_nothing_fails(start_redis: Any, make_link: MakeLink) -> None:
    server = start_redis()
    link = await make_link(server.url)
    settings = Settings(rate_limit_per_minute=2, rate_limit_burst=4, rate_limit_hosts=2)
    rates = RateLimiter(settings, RedisBuckets(link))
    assert (await shared_charge(rates, ALICE)).policy == RatePolicy(2, 4)
    server.signal(signal.SIGKILL)
    decisions = [await shared_charge(rates, ALICE) for _ in range(4)]
    assert {decision.policy for decision in decisions} == {RatePolicy(1, 2)}
    assert [decision.allowed for decision in decisions] == [True, True, False, False]
    server.start()
    assert await link.wait_up(30)
    assert (await shared_charge(rates, BOB)).policy == RatePolicy(2, 4)
    await link.call("SCRIPT", "FLUSH")
    assert (await shared_charge(rates, BOB)).allowed
