"""The search kernel against the engine's search on random states, step after step, all columns alike."""

import random
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton")

from nllbd.engine.batch import COLUMNS, UNLIKELY
from nllbd.engine.search import advance_fixed
from nllbd.kernels import beam_step_triton
from nllbd.kernels.beam_step_triton import beam_step
from tests.kernels.paged_case import DEVICE

EOS, VOCABULARY, POSITIONS = 2, 30, 24
SIZES = {"positions": POSITIONS, "blocks": 1, "source": 1}


@dataclass
class State:
    """The part of a batch that the search sees."""

    columns: dict[str, torch.Tensor]
    num_lanes: int
    device: torch.device = DEVICE

    def view(self, name: str) -> torch.Tensor:
        tensor = self.columns[name]
        return tensor[:, : self.num_lanes] if name in COLUMNS and "lanes" in COLUMNS[name].dimensions else tensor

    def __len__(self) -> int:
        return len(self.columns["length"])


def _make_state(rng: random.Random, beams: list[int], lanes: int, room: int) -> State:
    """`room` is how many lanes are stored, at least `lanes`."""
    sizes = SIZES | {"rows": len(beams), "lanes": room}
    columns = {
        name: torch.zeros([sizes[dimension] for dimension in column.dimensions], dtype=column.dtype)
        for name, column in COLUMNS.items()
    }
    columns["over"] = torch.zeros(len(beams), dtype=torch.bool)
    columns["num_beams"] = torch.tensor(beams)
    columns["length"].fill_(2)
    columns["max_length"] = torch.tensor([rng.choice((5, 12, 23)) for _ in beams])
    columns["penalty"] = torch.tensor([rng.choice((-0.5, 0.0, 0.6, 1.0, 1.4)) for _ in beams], dtype=torch.float64)
    modes = [rng.choice((0, 1, 2)) if width > 1 else 1 for width in beams]
    columns["early_stopping"] = torch.tensor(modes)
    columns["scores"].fill_(UNLIKELY)[:, 0] = 0.0
    columns["improvable"].fill_(True)
    columns["finished_scores"].fill_(-torch.inf)
    columns["tokens"][:, :, 0], columns["tokens"][:, :, 1] = 2, 7
    return State({name: column.to(DEVICE) for name, column in columns.items()}, lanes)


def _assert_equal(found: State, expected: State) -> None:
    """Everywhere that matters: sequences that are there, their live lanes, positions that are decided."""
    for row, beams in enumerate(expected.columns["num_beams"].tolist()):
        ours, theirs = ({name: column[row] for name, column in state.columns.items()} for state in (found, expected))
        length = int(theirs["length"])
        assert beams == 0 or (int(ours["length"]), bool(ours["over"])) == (length, bool(theirs["over"]))
        names = ["finished", "finished_scores"]
        if not theirs["over"]:
            assert beams == 0 or ours["improvable"] == theirs["improvable"]
            names += ["scores", "tokens", "ancestor"]
        for name in names:
            place = (slice(beams), slice(length))[: theirs[name].ndim]
            assert torch.equal(ours[name][place], theirs[name][place]), (name, row)
        for lane in range(beams):
            size = int(theirs["finished_lengths"][lane]) if theirs["finished"][lane] else 0
            assert not size or int(ours["finished_lengths"][lane]) == size
            assert torch.equal(ours["finished_tokens"][lane, :size], theirs["finished_tokens"][lane, :size])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("lanes", "room"), [(1, 8), (2, 2), (4, 8), (8, 8)])
def test_the_same_as_the_search_of_the_engine(seed: int, lanes: int, room: int, monkeypatch) -> None:
    monkeypatch.setattr(beam_step_triton, "BLOCK_T", 8)  # so that histories take several tiles
    rng = random.Random(seed)
    beams = [rng.randint(1, lanes), 0, lanes, *(rng.randint(1, lanes) for _ in range(3))]
    ours = _make_state(rng, beams, lanes, room)
    theirs = State({name: column.clone() for name, column in ours.columns.items()}, lanes)
    starts = [sum(beams[:number]) for number in range(len(beams))]
    source = [
        [start + min(lane, max(width - 1, 0)) for lane in range(room)]
        for start, width in zip(starts, beams, strict=True)
    ]
    lane_source = torch.tensor(source, device=DEVICE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(22):
        logits = torch.randn(sum(beams) + 1, VOCABULARY, generator=generator)
        logits[:, EOS] += torch.randn(len(logits), generator=generator) * 1.5
        log_probs, ids = (part.to(DEVICE) for part in logits.log_softmax(dim=1).topk(2 * lanes, dim=1))
        beam_step(ours.columns, log_probs, ids, lane_source, lanes, EOS)
        chosen = lane_source[:, :lanes]
        advance_fixed(theirs, log_probs[chosen], ids[chosen], EOS)
        _assert_equal(ours, theirs)
    assert theirs.columns["over"].sum() == sum(width > 0 for width in beams)


def test_ties_go_to_the_lower_lane_then_the_lower_token() -> None:
    state = _make_state(random.Random(0), [2], 2, 2)
    state.columns["max_length"].fill_(9)
    state.columns["scores"].zero_()
    log_probs = torch.full((2, 4), -1.0, device=DEVICE)
    ids = torch.tensor([[4, 5, 6, 8], [4, 5, 6, 8]], device=DEVICE)
    beam_step(state.columns, log_probs, ids, torch.tensor([[0, 1]], device=DEVICE), 2, EOS)
    assert state.columns["tokens"][0, :, 2].tolist() == [4, 5]
    assert state.columns["ancestor"][0, :, 1].tolist() == [0, 0]
    assert state.columns["ancestor"][0, :, 2].tolist() == [0, 1]
