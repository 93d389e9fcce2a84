"""The passes on fixed shapes against the plain ones, by the references and (interpreted) by Triton's kernels."""

import itertools
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

from nllbd.checkpoint import Checkpoint, read_checkpoint
from nllbd.errors import ConfigError
from nllbd.kernels.dispatch import Kernels, reference_kernels, triton_kernels
from nllbd.kernels.paged import PackedSources, PagedRows
from nllbd.model.decoder import DecoderRows, KVCache
from nllbd.model.encoder import SourceBatch
from nllbd.model.nllb import NllbModel
from nllbd.model.paged import PagedNetwork
from tests.kernels.interpreter import use_interpreter
from tests.model.random_checkpoint import write_checkpoint

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK, SLOTS, TILE = 4, 160, 16
SOURCES = [(250, 30, 2), (250, *range(31, 51), 2)]
TOKENS = torch.tensor([[[2, 240, 40, 50], [2, 240, 41, 60]], [[2, 241, 42, 70], [0, 0, 0, 0]]]).to(DEVICE)
ANCESTOR = torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]]]).to(DEVICE)
use_interpreter()


@pytest.fixture(autouse=True)
def tensors_on_the_device() -> Iterator[None]:
    with DEVICE:
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("paged")
    return read_checkpoint(write_checkpoint(folder, d_model=64, heads=2, ffn=96, vocab=300))


def _kernels(name: str) -> Kernels:
    if name == "reference":
        return reference_kernels()
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    return triton_kernels()


def _packed(padding: int) -> PackedSources:
    lengths = [len(source) for source in SOURCES]
    starts = [0, *itertools.accumulate(lengths)]
    tiles = [(s, n, at) for s, n in zip(starts, lengths, strict=False) for at in range(0, n, TILE)] + [(0, 0, 0)]
    slots = [100 + i for i in range(starts[-1])] + [-1] * padding
    return PackedSources(
        torch.tensor([token for source in SOURCES for token in source] + [0] * padding),
        torch.tensor([i for length in lengths for i in range(length)] + [0] * padding),
        torch.tensor(slots),
        *(torch.tensor(column) for column in zip(*tiles, strict=True)),
        tile_rows=TILE,
    )


def _rows(length: int) -> PagedRows:
    """Step `length`: positions up to length - 1 decided; both lanes of sequence 0, one of sequence 1, an empty row."""
    return PagedRows(
        sequence=torch.tensor([0, 0, 1, -1]),
        lane=torch.tensor([0, 1, 0, 0]),
        back=torch.zeros(4, dtype=torch.int64),
        group_sequence=torch.tensor([0, 1, -1]),
        group_rows=torch.tensor([[0, 1], [2, -1], [-1, -1]]),
        length=torch.full((2,), length),
        num_beams=torch.tensor([2, 1]),
        cross_length=torch.tensor([3, 22]),
        tokens=TOKENS,
        ancestor=ANCESTOR.clone(),
        self_table=torch.tensor([[7, 3], [5, 9]]),
        cross_table=torch.tensor([[25, 0, 0, 0, 0, 0], [26, 27, 28, 29, 30, 31]]),
        block_size=BLOCK,
    )


def _cache(model: NllbModel) -> KVCache:
    cache = KVCache(model.config, SLOTS, model.kv_dtype, DEVICE)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    return cache


def _plain(model: NllbModel) -> torch.Tensor:
    """[3, k] log-probabilities of step 4 for the live rows, by the plain passes with slots written out."""
    cache = _cache(model)
    packed = SourceBatch.pack(SOURCES, DEVICE)
    model.write_cross_kv(model.encode(packed), torch.arange(100, 125), cache)
    tables = {0: [7, 3], 1: [5, 9]}
    out = torch.empty(0)
    for length in range(1, 5):
        slots = []
        for sequence, lane, beams in ((0, 0, 2), (0, 1, 2), (1, 0, 1)):
            own = [t * beams + int(ANCESTOR[sequence, lane, t]) for t in range(length - 1)]
            own.append((length - 1) * beams + lane)
            slots.append([tables[sequence][s // BLOCK] * BLOCK + s % BLOCK for s in own])
        rows = DecoderRows(
            tokens=torch.stack([TOKENS[0, 0, length - 1], TOKENS[0, 1, length - 1], TOKENS[1, 0, length - 1]]),
            positions=torch.full((3,), length - 1),
            write_slots=torch.tensor([row[-1] for row in slots]),
            self_slots=torch.tensor(slots),
            self_lengths=torch.full((3,), length),
            cross_slots=torch.tensor([[100, 101, 102] + [100] * 19, list(range(103, 125))]),
            cross_lengths=torch.tensor([3, 22]),
            group_rows=torch.tensor([[0, 1], [2, 0]]),
            row_places=torch.tensor([0, 1, 2]),
        )
        out = model.project_topk(model.decode(rows, cache), 4)[0]
    return out


@pytest.mark.parametrize("name", ["reference", "triton"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_equals_the_plain_passes(checkpoint: Checkpoint, name: str, fused: bool, precision: str) -> None:
    model = NllbModel(checkpoint, precision, DEVICE)
    cache = _cache(model)
    network = PagedNetwork(model, cache, _kernels(name))
    # padding of the packed sources and cross slots 100.. (blocks 25..) for 3 + 22 tokens, the second from slot 103
    sources = _packed(padding=7)
    shifted = torch.where(sources.slots >= 103, sources.slots + 1, sources.slots)
    with torch.inference_mode():
        network.encode(PackedSources(**{k: getattr(sources, k) for k in PackedSources.__slots__} | {"slots": shifted}))
        for length in range(1, 5):
            # lane 1 of sequence 0 leaves lane 0 at position 2: until then its ancestor at its own position is itself
            rows = _rows(length)
            rows.ancestor[0, 1, length - 1] = 1
            found, _ = network.decode(rows, 4, fused=fused)
        expected = _plain(model)
    tolerance = 1e-4 if precision == "float32" else 2e-2
    torch.testing.assert_close(found[:3], expected, rtol=0, atol=tolerance)


def test_int8_is_refused(checkpoint: Checkpoint) -> None:
    with torch.device("cpu") as cpu:
        model = NllbModel(checkpoint, "int8", cpu)
        with pytest.raises(ConfigError, match="int8"):
            PagedNetwork(model, KVCache(model.config, 4, torch.float16, cpu))
