"""The batched search against its rules written out in plain Python, one sequence at a time, on a made-up language.

(That these rules are transformers' is what tests/test_exactness.py shows on the real model.)
"""

import random
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nllbd.engine.batch import Batch
from nllbd.engine.search import advance, finished_sequence
from nllbd.sched.sequence import SearchParams, SequenceRequest

VOCABULARY, EOS, CODE, START = 24, 2, 7, 2


def log_probs(salt: int, prefix: tuple[int, ...]) -> torch.Tensor:
    """A language model that is a hash: [VOCABULARY] float32, `</s>` likely enough to end within reach."""
    rng = random.Random(hash((salt, prefix)))
    logits = torch.tensor([rng.gauss(0.0, 1.5) for _ in range(VOCABULARY)])
    logits[EOS] += rng.choice((-1.0, 0.0, 2.5))
    return logits.log_softmax(dim=0)


@dataclass
class PlainSearch:
    """The rules, literally."""

    salt: int
    params: SearchParams
    running: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    finished: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)

    def run(self) -> list[tuple[int, ...]]:
        self.running = [(0.0, (START, CODE))]
        while not self._step():
            pass
        return [tokens for _, tokens in self.finished]

    def _step(self) -> bool:
        params, beams = self.params, self.params.num_beams
        candidates = []
        for lane, (score, tokens) in enumerate(self.running):
            row = log_probs(self.salt, tokens)
            total = row + torch.tensor(score, dtype=torch.float32)
            candidates += [(-total[t].item(), lane, t, (*tokens, t)) for t in range(VOCABULARY)]
        best = sorted(candidates)[: 2 * beams]
        length = len(best[0][3])
        at_limit = length >= params.max_length
        open_ones = []
        for rank, (negative, _, token, tokens) in enumerate(best):
            if token == EOS or at_limit:
                if rank < beams:
                    self.finished.append((-negative / (length - 1) ** params.length_penalty, tokens))
            else:
                open_ones.append((-negative, tokens))
        self.finished = sorted(self.finished, key=lambda item: -item[0])[:beams]
        self.running = open_ones[:beams]
        return at_limit or self._stop(length)

    def _stop(self, length: int) -> bool:
        params = self.params
        if len(self.finished) < params.num_beams:
            return False
        if params.early_stopping is True or params.num_beams == 1:
            return True
        never = params.early_stopping == "never" and params.length_penalty > 0
        reach = (params.max_length if never else length) - 1
        return self.running[0][0] / reach**params.length_penalty <= self.finished[-1][0] + 1e-7


def batched(cases: list[tuple[int, SearchParams]]) -> list[list[tuple[int, ...]]]:
    """All cases in one Batch; returns each one's finished token sequences, best first."""
    batch = Batch(torch.device("cpu"))
    results: dict[int, list[tuple[int, ...]]] = {}
    salts = {}
    for seq_id, (salt, params) in enumerate(cases):
        row = batch.append(SequenceRequest(seq_id, (5, 2), CODE, params, 0.0), [0, 1], [0])
        batch.columns["tokens"][row, :, 0], batch.columns["tokens"][row, :, 1] = START, CODE
        salts[seq_id] = salt
    while len(batch):
        lanes, length = batch.num_lanes, batch.view("length").tolist()
        rows = torch.stack(
            [
                log_probs(salts[seq_id], tuple(batch.columns["tokens"][row, lane, : length[row]].tolist()))
                for row, seq_id in enumerate(batch.seq_ids)
                for lane in range(lanes)
            ]
        )
        values, ids = rows.topk(2 * lanes, dim=1)
        over = advance(batch, values.view(len(batch), lanes, -1), ids.view(len(batch), lanes, -1), EOS)
        done = [finished_sequence(batch, row, EOS) for row in over]
        for item in done:
            results[item.seq_id] = [(START, *hypothesis.token_ids) for hypothesis in item.hypotheses]
        batch.remove([item.seq_id for item in done])
    return [results[seq_id] for seq_id in range(len(cases))]


def params_strategy() -> st.SearchStrategy[SearchParams]:
    return st.builds(
        lambda beams, penalty, early, length: SearchParams(beams, penalty, early, length, num_hypotheses=beams),
        st.integers(1, 5),
        st.sampled_from((-0.5, 0.0, 0.6, 1.0, 1.4)),
        st.sampled_from((True, False, "never")),
        st.integers(3, 14),
    )


@given(st.lists(st.tuples(st.integers(0, 10_000), params_strategy()), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_sequence_of_a_mixed_batch_follows_the_rules(cases: list[tuple[int, SearchParams]]) -> None:
    for (salt, params), found in zip(cases, batched(cases), strict=True):
        assert found == PlainSearch(salt, params).run(), params


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_one_beam_is_greedy_whatever_early_stopping_says(early_stopping) -> None:
    params = SearchParams(1, 1.0, early_stopping, 20)
    (found,) = batched([(3, params)])
    tokens = (START, CODE)
    while tokens[-1] != EOS or len(tokens) == 2:
        tokens = (*tokens, int(log_probs(3, tokens).argmax()))
        if len(tokens) == 20:
            break
    assert found == [tokens]


def test_a_hypothesis_cut_at_max_length_is_called_truncated() -> None:
    batch = Batch(torch.device("cpu"))
    batch.append(SequenceRequest(0, (5, 2), CODE, SearchParams(1, 1.0, True, 3), 0.0), [0, 1], [0])
    values = torch.tensor([[[-0.1, -3.0]]])
    assert advance(batch, values, torch.tensor([[[9, 2]]]), EOS) == [0]
    done = finished_sequence(batch, 0, EOS)
    assert done.truncated
    assert done.hypotheses[0].token_ids[-1] == 9


def test_exact_ties_go_to_the_lower_lane_then_the_lower_token() -> None:
    batch = Batch(torch.device("cpu"))
    batch.append(SequenceRequest(0, (5, 2), CODE, SearchParams(2, 1.0, True, 9), 0.0), [0, 1], [0])
    batch.columns["scores"][0, :2] = 0.0
    values = torch.full((1, 2, 4), -1.0)
    advance(batch, values, torch.tensor([[[4, 5, 6, 8], [4, 5, 6, 8]]]), EOS)
    assert batch.columns["tokens"][0, :2, 2].tolist() == [4, 5]
    assert batch.columns["ancestor"][0, :2, 1].tolist() == [0, 0]
