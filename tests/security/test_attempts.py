"""Failed authentications: guessing is slow, and one broken client does not lock out its neighbours."""

from __future__ import annotations

import pytest

from nllbd.errors import RateLimited
from nllbd.security.attempts import POLICY, FailedAttempts

GOOD, OTHER = b"g" * 32, b"o" * 32


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Audit:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def record(self, action: str, *, actor: str = "", subject: str = "", **details: str) -> None:
        raise AssertionError("not this one")

    def failed_authentication(self, address: str, reason: str) -> None:
        self.seen.append((address, reason))


def fail(attempts: FailedAttempts, times: int, network: str = "192.0.2.1") -> None:
    for number in range(times):
        attempts.note_failure(network, network, "the key is not valid", b"%032d" % number)


def test_guessing_is_slowed_down_to_the_rate() -> None:
    clock = Clock()
    attempts = FailedAttempts(clock)
    fail(attempts, POLICY.burst - 1)
    attempts.check("192.0.2.1", OTHER)
    fail(attempts, 1)
    with pytest.raises(RateLimited) as caught:
        attempts.check("192.0.2.1", OTHER)
    assert caught.value.retry_after_s == pytest.approx(60 / POLICY.per_minute)
    attempts.check("192.0.2.2", OTHER)
    clock.now += 60 / POLICY.per_minute
    attempts.check("192.0.2.1", OTHER)


def test_who_was_right_before_still_passes_from_there_only() -> None:
    attempts = FailedAttempts(Clock())
    attempts.note_success("192.0.2.1", GOOD)
    fail(attempts, POLICY.burst)
    fail(attempts, POLICY.burst, "192.0.2.2")
    attempts.check("192.0.2.1", GOOD)
    with pytest.raises(RateLimited):
        attempts.check("192.0.2.2", GOOD)
    attempts.note_failure("192.0.2.1", "192.0.2.1", "the key is not valid", GOOD)  # revoked meanwhile
    with pytest.raises(RateLimited):
        attempts.check("192.0.2.1", GOOD)


def test_every_failure_is_audited_and_few_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    audit = Audit()
    attempts = FailedAttempts(Clock(), audit)
    fail(attempts, 500)
    assert audit.seen == [("192.0.2.1", "the key is not valid")] * 500
    assert 1 <= capsys.readouterr().out.count("authentication failed") <= 20
