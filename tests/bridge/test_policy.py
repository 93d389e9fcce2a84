"""Restart arithmetic: pauses grow only while deaths teach nothing, counts fall back with the first success."""

from __future__ import annotations

from nllbd.bridge.policy import RestartPolicy, Setbacks


def died(setbacks: Setbacks, *, delivered: bool = False, blamed: bool = False, was_ready: bool = True) -> None:
    setbacks.record(delivered=delivered, blamed=blamed, was_ready=was_ready)


def test_no_pause_after_progress_or_with_suspects() -> None:
    policy, setbacks = RestartPolicy(), Setbacks()
    assert policy.pause_s(setbacks) == 0.0
    died(setbacks, blamed=True)
    assert policy.pause_s(setbacks) == 0.0
    died(setbacks, delivered=True)
    assert policy.pause_s(setbacks) == 0.0


def test_pauses_double_up_to_a_limit() -> None:
    policy, setbacks = RestartPolicy(backoff_s=0.1, max_backoff_s=0.5), Setbacks()
    pauses = []
    for _ in range(100):
        died(setbacks)
        pauses.append(policy.pause_s(setbacks))
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.5]
    assert set(pauses[3:]) == {0.5}


def test_what_counts_as_what() -> None:
    setbacks = Setbacks()
    died(setbacks, was_ready=False)
    died(setbacks, was_ready=False)
    assert (setbacks.fruitless, setbacks.barren, setbacks.starts) == (2, 2, 2)
    died(setbacks)
    assert (setbacks.fruitless, setbacks.barren, setbacks.starts) == (3, 3, 0)
    died(setbacks, blamed=True)
    assert (setbacks.fruitless, setbacks.barren, setbacks.starts) == (4, 0, 0)
    died(setbacks, delivered=True)
    assert (setbacks.fruitless, setbacks.barren, setbacks.starts) == (0, 0, 0)
