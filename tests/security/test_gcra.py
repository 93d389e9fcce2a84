"""GCRA: what it lets through, what it promises, and that its bound on memory errs towards letting through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nllbd.security.gcra import Buckets, RatePolicy, decide

POLICIES = st.builds(RatePolicy, st.integers(1, 10_000), st.integers(1, 200))
GAPS = st.lists(st.integers(0, 30_000_000), max_size=80)
MINUTE_US = 60_000_000


@given(POLICIES, GAPS)
def test_no_window_lets_more_through_than_burst_and_rate(policy: RatePolicy, gaps: list[int]) -> None:
    now, tat, passed = 1_000_000, 0, []
    for gap in gaps:
        now += gap
        decision = decide(tat, now, policy)
        if decision.allowed:
            tat = now + decision.full_after_us
            passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            most = policy.burst + (passed[last] - start) // policy.interval_us
            assert last - first + 1 <= most


@given(POLICIES, GAPS)
def test_what_it_says_comes_true(policy: RatePolicy, gaps: list[int]) -> None:
    """`remaining` units pass at once and no more; after `retry_after` one passes, a microsecond before none does."""
    now, tat = 1_000_000, 0
    for gap in gaps:
        now += gap
        decision = decide(tat, now, policy)
        assert 0 <= decision.remaining < policy.burst
        if not decision.allowed:
            assert decision.retry_after_us > 0
            assert not decide(tat, now + decision.retry_after_us - 1, policy).allowed
            assert decide(tat, now + decision.retry_after_us, policy).allowed
            continue
        tat = now + decision.full_after_us
        assert decide(tat, tat, policy).remaining == policy.burst - 1  # full again when it says so
        probe = tat
        for _ in range(decision.remaining):
            following = decide(probe, now, policy)
            assert following.allowed
            probe = now + following.full_after_us
        assert not decide(probe, now, policy).allowed


def test_a_burst_then_the_rate() -> None:
    buckets, policy = Buckets(), RatePolicy(per_minute=10, burst=3)
    assert [buckets.charge("a", policy, 0).allowed for _ in range(4)] == [True, True, True, False]
    assert buckets.charge("b", policy, 0).allowed
    refused = buckets.charge("a", policy, 0)
    assert refused.retry_after_us == MINUTE_US // 10
    assert buckets.charge("a", policy, refused.retry_after_us).allowed
    assert not buckets.charge("a", policy, refused.retry_after_us).allowed


@given(POLICIES, POLICIES)
def test_a_policy_that_changes_never_locks_out_for_longer_than_its_own_bucket(old: RatePolicy, new: RatePolicy) -> None:
    buckets = Buckets()
    for _ in range(old.burst):
        buckets.charge("a", old, 0)
    assert buckets.charge("a", new, 0).retry_after_us <= new.interval_us


@given(st.lists(st.integers(0, 300), max_size=400))
def test_memory_is_bounded_and_what_is_used_stays(names: list[int]) -> None:
    buckets, policy = Buckets(capacity=32), RatePolicy(per_minute=1, burst=1)
    buckets.charge("kept", policy, 0)
    for name in names:
        buckets.charge(f"{name}", policy, 0)
        assert not buckets.charge("kept", policy, 0).allowed
        assert len(buckets._tats) <= 32


@given(POLICIES, st.integers(1, 20))
def test_shares_add_up_to_no_more_unless_there_are_more_hosts_than_units(policy: RatePolicy, num_hosts: int) -> None:
    share = policy.share(num_hosts)
    assert share.per_minute * num_hosts <= max(policy.per_minute, num_hosts)
    assert share.burst * num_hosts <= max(policy.burst, num_hosts)


@given(POLICIES)
def test_the_window_says_the_rate(policy: RatePolicy) -> None:
    """`q` units in `w` seconds are never more than the rate, and less only by the rounding to whole seconds."""
    assert policy.burst * 60 <= policy.per_minute * policy.window_s
    assert (policy.window_s - 1) * policy.per_minute < policy.burst * 60 or policy.window_s == 1
