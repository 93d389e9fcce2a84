"""When the circuit opens, and how long it stays so."""

from __future__ import annotations

from nllbd.breaker import Breaker


def test_a_breaker_opens_at_once_when_a_connection_is_lost_and_at_the_third_timeout() -> None:
    breaker = Breaker(max_timeouts=3)
    assert breaker.is_open  # nothing was reached yet
    breaker.close()
    for _ in range(2):
        breaker.time_out()
    assert not breaker.is_open
    breaker.succeed()
    for _ in range(2):
        breaker.time_out()
    assert not breaker.is_open, "timeouts count only in a row"
    breaker.time_out()
    assert breaker.is_open
    breaker.close()
    breaker.fail()
    assert breaker.is_open


def test_pauses_grow_until_a_call_succeeds() -> None:
    breaker = Breaker(first_pause_s=0.1, max_pause_s=1.0)
    pauses = []
    for _ in range(7):
        breaker.fail()
        pauses.append(breaker.pause_s)
        breaker.close()  # a probe alone is no proof: calls may fail all the same
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    breaker.succeed()
    breaker.fail()
    assert breaker.pause_s == 0.0
