"""A short soak; `python -m bench.soak` is the long one."""

from bench.soak import soak


def test_nothing_is_lost_leaked_or_grown() -> None:
    run = soak(seconds=8.0, pool_blocks=48, seed=3)
    assert run.problems() == []
    assert {"stop", "aborted", "deadline"} <= set(run.outcomes)
