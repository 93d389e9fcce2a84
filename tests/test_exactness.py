"""The exactness contract on a sample; `python -m bench.exactness` is the full sweep."""

import pytest
import torch

from bench import exactness

SENTENCES, JOINED, POOL_BLOCKS = 60, 4, 44


@pytest.fixture(scope="module")
def requests():
    return exactness.make_requests(SENTENCES, JOINED, seed=11)


@pytest.mark.timeout(600)
def test_float32_equals_transformers_through_preemption(requests) -> None:
    torch.manual_seed(0)
    engine = exactness.small_engine("float32", POOL_BLOCKS)
    outcomes = exactness.run_engine(engine, requests, seed=5)
    assert engine.stats.preemptions > 5, "the pool was not small enough to test preemption"
    differences = exactness.compare(requests, outcomes)
    assert not [str(difference) for difference in differences if not difference.is_near_tie]
    assert len(differences) <= 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_batch_mates_do_not_change_a_translation(requests, precision: str) -> None:
    engine = exactness.small_engine(precision, POOL_BLOCKS)
    outcomes = exactness.run_engine(engine, requests, seed=5)
    same = sum(outcomes[r.seq_id].hypotheses[0].token_ids == exactness.alone(engine, r) for r in requests)
    assert same >= len(requests) - 2


def test_the_comparison_would_notice_a_wrong_token(requests) -> None:
    engine = exactness.small_engine("float32", POOL_BLOCKS)
    few = requests[:2]
    outcomes = exactness.run_engine(engine, few, seed=5)
    first = outcomes[few[0].seq_id]
    spoiled = tuple(t if i != 1 else t + 1 for i, t in enumerate(first.hypotheses[0].token_ids))
    wrong = type(first.hypotheses[0])(spoiled, 0.0)
    outcomes[few[0].seq_id] = type(first)(first.seq_id, first.reason, (wrong,))
    (difference,) = exactness.compare(few, outcomes)
    assert not difference.is_near_tie
