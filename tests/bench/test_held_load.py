"""The held load: its account finds what it should, its fit tells a leak from noise, and a short run of it is clean."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.held_load import texts
from bench.held_load.account import settle
from bench.held_load.memory import Watch, fit
from bench.held_load.outcomes import Outcome, Recorder, read_outcomes

GOOD = Outcome("a", "polite", "message", 200, 0.5, 20.0, True, False, True)


def line(request_id: str = "a", status: int = 200) -> dict[str, Any]:
    return {"request_id": request_id, "status": status}


def test_a_clean_run_has_no_problem() -> None:
    refused = replace(GOOD, id="b", status=503, latency_s=0.002, has_retry_after=True)
    account = settle([GOOD, refused], [line(), line("b", 503), line("somebody else's")])
    assert account.problems() == []
    assert (account.num_accepted, account.in_time, account.refusal_median_s) == (1, 1.0, 0.002)


@pytest.mark.parametrize(
    ("outcome", "lines", "expected"),
    [
        (GOOD, [], "lost"),
        (GOOD, [line(), line()], "doubled"),
        (GOOD, [line(status=504)], "otherwise"),
        (replace(GOOD, ended=False, status=0), [line()], "unanswered"),
        (replace(GOOD, is_right=False), [line()], "somebody else's"),
        (replace(GOOD, status=500), [line(status=500)], "failed"),
        (replace(GOOD, status=404), [line(status=404)], "failed"),
        (replace(GOOD, status=503), [line(status=503)], "Retry-After"),
        (replace(GOOD, latency_s=20.1), [line()], "in time"),
        (replace(GOOD, status=504), [line(status=504)], "in time"),
        (replace(GOOD, status=503, latency_s=0.06, has_retry_after=True), [line(status=503)], "60 ms"),
        (Outcome("a", "rude", "vanish"), [], "lost"),
        (Outcome("a", "poison", "die_on", ended=True, status=500), [line(status=200)], "otherwise"),
    ],
)
def test_what_must_not_be_is_found(outcome: Outcome, lines: list[dict[str, Any]], expected: str) -> None:
    assert expected in "; ".join(settle([outcome], lines).problems())


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome("a", "rude", "vanish"), 499), (Outcome("a", "poison", "raise_on", 500, ended=True), 500)],
)
def test_the_rude_and_the_poisonous_are_owed_a_line_and_no_more(outcome: Outcome, status: int) -> None:
    assert settle([outcome], [line(status=status)]).problems() == []


def test_outcomes_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "outcomes"
    recorder = Recorder(path, "test")
    first, second = recorder.begin("polite", "message", 5.0), recorder.begin("rude", "vanish")
    first.end(503, has_retry_after=True)
    found = read_outcomes(path)
    assert (found[first.id].status, found[first.id].has_retry_after, found[first.id].ended) == (503, True, True)
    assert (found[second.id].status, found[second.id].ended) == (0, False)
    recorder.close()
    assert read_outcomes(tmp_path / "nothing") == {}


@pytest.mark.parametrize(("leak_per_s", "is_flat"), [(0, True), (200_000, False), (-200_000, True)])
def test_a_leak_is_told_from_noise(leak_per_s: int, is_flat: bool) -> None:
    rng = random.Random(1)
    watch = Watch("daemon", 0)
    watch.samples = [(at / 2, 100_000_000 + leak_per_s * at // 2 + rng.randint(0, 4_000_000)) for at in range(1200)]
    found = fit(watch, 60.0)
    assert found is not None
    assert found.bytes_per_s == pytest.approx(leak_per_s, abs=3000)
    assert found.is_flat is is_flat
    assert fit(Watch("short", 0), 60.0) is None


def test_texts_name_themselves_and_poison_is_in_no_other() -> None:
    own = texts.number()
    assert own in texts.text(5, own)
    words = [word for word, _ in texts.poison_tokens().values()]
    assert len(set(words)) == len(texts.FAULTS)
    assert not [sentence for sentence in texts.english() if set(words) & set(sentence.lower().split())]


@pytest.mark.timeout(240)
@pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed")
def test_a_short_run_loses_nothing() -> None:
    """Times are judged by orders of magnitude here: a loaded machine is no fault of the daemon's."""
    from bench.held_load.__main__ import Plan, as_json, report, run

    plan = Plan(seconds=16.0, users=6, every_s=0.3, overload_s=2.0, away_s=1.0, rude_every_s=0.3)
    result = run(plan)
    account = result.account
    told = report(result)
    assert account.statuses["polite 200"] > 0, told
    wrong = (account.lost, account.doubled, account.unanswered, account.contradicted, account.wrong, account.failed)
    assert wrong == ([], [], [], [], [], []), told
    assert not account.rudely_refused, told
    assert account.in_time > 0.9, told
    assert (account.refusal_median_s or 0.0) < 1.0, told
    assert result.engine["integrity"] == "ok", told
    assert result.engine["num_restarts"] > 0, told
    assert result.booked in (None, result.served), told
    assert {"engine: kill -9", "engine: SIGSTOP"} <= {what for _, what in result.breakage}
    assert as_json(result)["account"]["num_accepted"] == account.num_accepted
