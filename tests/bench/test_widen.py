"""The widened checkpoint computes what the small one does, and keeps clear of the pitfalls of its kind."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench import widen
from bench.corpus import sentences
from bench.peers import load_transformers
from bench.widen import PADDING_LOGIT, Shape
from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.engine.build import build_engine
from nllbd.sched.sequence import SearchParams, SequenceRequest
from nllbd.text.tokenizer import Tokenizer

SMALL_VOCAB = 8206
PLAIN = Shape(512, 8, 5, 2048, SMALL_VOCAB + 130)
WITH_LARGER_HEADS = Shape(512, 4, 4, 1024, SMALL_VOCAB)  # as at 3.3B, where a head is twice as large
SHAPES = {"plain": PLAIN, "larger heads": WITH_LARGER_HEADS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("wide") / name for name in SHAPES}
    for name, folder in made.items():
        widen.widen(DEMO_FOLDER, folder, SHAPES[name])
    return made


@pytest.fixture(scope="module")
def tensors(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    return load_file(folders["plain"] / "model.safetensors")


def outputs(folder: Path, num_beams: int) -> list[tuple[int, ...]]:
    """Through our own engine in float32."""
    engine = build_engine(EngineConfig(str(folder), "cpu", "float32", num_threads=1, kv_cache_bytes=1 << 28))
    tokenizer = Tokenizer(read_checkpoint(folder))
    params = SearchParams(num_beams=num_beams, max_length=48)
    engine.add(
        SequenceRequest(i, tokenizer.encode(it.text, it.source), tokenizer.language_id(it.target), params, math.inf)
        for i, it in enumerate(sentences(10, [("eng_Latn", "fra_Latn"), ("deu_Latn", "spa_Latn")], seed=1))
    )
    made = {}
    while engine.has_work:
        made.update((outcome.seq_id, outcome.hypotheses[0].token_ids) for outcome in engine.step())
    return [made[i] for i in sorted(made)]


def source_ids() -> torch.Tensor:
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    return torch.tensor([tokenizer.encode("Where is the train station?", "eng_Latn")])


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=source_ids(), decoder_input_ids=torch.tensor([[2, 7001, 40, 300]])).logits[0]
    return found


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", SHAPES)
def test_our_engine_gives_the_small_models_outputs(folders: dict[str, Path], name: str, num_beams: int) -> None:
    assert outputs(folders[name], num_beams) == outputs(DEMO_FOLDER, num_beams)


def test_transformers_gives_the_small_models_logits(folders: dict[str, Path]) -> None:
    small = logits(load_transformers(DEMO_FOLDER, torch.float32))
    wide = logits(load_transformers(folders["plain"], torch.float32))
    torch.testing.assert_close(wide[:, :SMALL_VOCAB], small, rtol=0, atol=1e-4)


def test_plain_transformers_is_wrong_without_a_word(folders: dict[str, Path]) -> None:
    """Why peers.py exists: if this ever passes by itself, the five lines there may go."""
    from transformers import M2M100ForConditionalGeneration

    small = logits(load_transformers(DEMO_FOLDER, torch.float32))
    wide = logits(M2M100ForConditionalGeneration.from_pretrained(folders["plain"], dtype=torch.float32).eval())
    assert (wide[:, :SMALL_VOCAB] - small).abs().max() > 0.1


def test_ids_beyond_the_small_vocabulary_never_win(folders: dict[str, Path]) -> None:
    wide = logits(load_transformers(folders["plain"], torch.float32))
    padding = wide[:, SMALL_VOCAB:]
    torch.testing.assert_close(padding, torch.full_like(padding, PADDING_LOGIT), rtol=0, atol=1e-3)


def test_positions_are_shipped_tiled_and_not_divided(tensors: dict[str, torch.Tensor]) -> None:
    for side in ("encoder", "decoder"):
        table = tensors[f"model.{side}.embed_positions.weights"]
        assert table.dtype == torch.float32
        assert table.shape == (1026, 512)
        assert torch.equal(table[:, :256], table[:, 256:])
        assert table.abs().max() == 1.0
        assert not table[1].any()


def test_no_two_halves_are_equal(tensors: dict[str, torch.Tensor]) -> None:
    """Or CTranslate2 would store them once, and the benchmark would flatter it."""
    linears = {name: it for name, it in tensors.items() if it.dim() == 2 and "layers" in name}
    for name, weight in linears.items():
        one, two = weight.chunk(2, dim=1)
        assert not torch.equal(one, two), name
        upper, lower = weight.chunk(2, dim=0)
        assert not torch.equal(upper, lower), name
    values = list(linears.values())
    same = [(a, b) for a in range(len(values)) for b in range(a) if torch.equal(values[a], values[b])]
    assert not same


def test_added_layers_add_nothing_and_cost_the_same(tensors: dict[str, torch.Tensor]) -> None:
    counting = {"encoder": {0, 1, 2, 3}, "decoder": {0, 2}}  # of 4 and 2 small layers spread over 5
    tiled = torch.randn(256).repeat(2)
    for side, kept in counting.items():
        for layer in range(5):
            weight = tensors[f"model.{side}.layers.{layer}.self_attn.out_proj.weight"]
            adds = (weight @ tiled).abs().max() > 1e-4
            assert adds == (layer in kept), (side, layer)
            assert weight.abs().mean() > 1e-3


def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="d_model an even multiple"):
        widen.widen(DEMO_FOLDER, tmp_path, Shape(768, 12, 4, 3072))
    with pytest.raises(ValueError, match="no fewer layers"):
        widen.widen(DEMO_FOLDER, tmp_path, Shape(512, 8, 2, 2048))


def test_the_cache_makes_a_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(widen.SHAPES, "600M", WITH_LARGER_HEADS)
    first = widen.cached("600M", tmp_path, dtype="float16")
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert widen.cached("600M", tmp_path, dtype="float16") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert widen.cached("600M", tmp_path, dtype="bfloat16") != first


def test_the_true_shapes_fit_the_bundled_model() -> None:
    for shape in widen.SHAPES.values():
        assert shape.vocab_size == 256_206
        widen.Widener(DEMO_FOLDER, shape, torch.float16)
