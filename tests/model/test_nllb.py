"""The network against transformers on the same checkpoint folder: encoder output, then decoder log-probabilities."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import M2M100ForConditionalGeneration

from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.errors import CheckpointError
from nllbd.kernels.native import LEVELS, Quantized, load_native
from nllbd.model.decoder import DecoderRows, KVCache
from nllbd.model.encoder import SourceBatch
from nllbd.model.nllb import NllbModel

CPU = torch.device("cpu")
SOURCES = [(7, 2), (9, 30, 31, 2), (9, 40, 41, 42, 43, 2), tuple(range(100, 130))]
TARGET = (2, 50, 51, 52, 53, 54)


def _load(folder: Path, precision: str = "float32") -> NllbModel:
    return NllbModel(read_checkpoint(folder), precision, CPU)


def _teacher_forced_rows(length: int, block: int, cross_slots: list[int]) -> DecoderRows:
    """One sequence, one lane: a row for each position, slots counted from `block`."""
    position = torch.arange(length)
    return DecoderRows(
        tokens=torch.tensor(TARGET[:length]),
        positions=position,
        write_slots=position + block,
        self_slots=torch.where(position[None, :] <= position[:, None], position[None, :] + block, block),
        self_lengths=position + 1,
        cross_slots=torch.tensor([cross_slots] * length),
        cross_lengths=torch.full((length,), len(cross_slots)),
        group_rows=position[:, None],
        row_places=position,
    )


@torch.inference_mode()
def _compare(folder: Path) -> None:
    ours = _load(folder)
    theirs = M2M100ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    batch = SourceBatch.pack(SOURCES, CPU)
    hidden = ours.encode(batch)
    cache = KVCache(ours.config, 200, torch.float32, CPU)
    start = 0
    for source in SOURCES:
        expected = theirs(
            input_ids=torch.tensor([source]),
            attention_mask=torch.ones(1, len(source)),
            decoder_input_ids=torch.tensor([TARGET]),
        )
        own = hidden[start : start + len(source)]
        start += len(source)
        torch.testing.assert_close(own, expected.encoder_last_hidden_state[0], rtol=1e-4, atol=2e-5)
        slots = list(range(100, 100 + len(source)))
        ours.write_cross_kv(own, torch.tensor(slots), cache)
        decoded = ours.decode(_teacher_forced_rows(len(TARGET), 10, slots), cache)
        values, ids = ours.project_topk(decoded, 5)
        reference = expected.logits[0].log_softmax(dim=-1)
        torch.testing.assert_close(values, reference.gather(1, ids), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values, reference.topk(5, dim=1).values, rtol=1e-4, atol=1e-4)


def test_demo_model_equals_transformers() -> None:
    _compare(DEMO_FOLDER)


@pytest.mark.parametrize(
    ("d_model", "heads", "ffn"),
    [(1024, 16, 4096), (1024, 16, 8192), (2048, 16, 8192)],
    ids=["600M", "1.3B", "3.3B"],
)
def test_nllb_shapes_at_reduced_depth_equal_transformers(make_checkpoint, d_model: int, heads: int, ffn: int) -> None:
    _compare(make_checkpoint(f"shape{d_model}x{ffn}", d_model=d_model, heads=heads, ffn=ffn, layers=1))


def test_full_vocabulary_is_projected_in_tiles(make_checkpoint) -> None:
    folder = make_checkpoint("vocabulary", d_model=64, heads=4, ffn=128, layers=1, vocab=256206)
    assert len(_load(folder).projection) > 1
    _compare(folder)


def test_pickled_weights_load_like_safetensors(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint("pickled", d_model=64, heads=4, ffn=128, layers=1)
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    batch = SourceBatch.pack(SOURCES, CPU)
    assert torch.equal(_load(folder).encode(batch), _load(tmp_path).encode(batch))


def test_a_position_table_in_the_checkpoint_is_used(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint("positions", d_model=64, heads=4, ffn=128, layers=1)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    table = torch.randn(1026, 64)
    save_file({**tensors, "model.encoder.embed_positions.weights": table}, tmp_path / "model.safetensors")
    assert torch.equal(_load(tmp_path).encoder_positions, table)
    assert not torch.equal(_load(folder).encoder_positions, table)


def _drop_embeddings(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight"))]:
        del tensors[name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("model.decoder.layers.0.fc1.weight"), r"no tensor 'model\.decoder\.layers\.0\.fc1\.weight'"),
        (lambda t: t.update({"model.encoder.layer_norm.bias": torch.zeros(3)}), r"shape \[3\], .* promises \[64\]"),
        (_drop_embeddings, "no embedding"),
    ],
)
def test_weights_that_do_not_match_the_config_are_refused_by_name(make_checkpoint, tmp_path, damage, message) -> None:
    folder = make_checkpoint("damaged", d_model=64, heads=4, ffn=128, layers=1)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        _load(tmp_path)


def test_truncated_weights_are_refused(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint("short", d_model=64, heads=4, ffn=128, layers=1)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    with pytest.raises(CheckpointError, match="cannot be read"):
        _load(tmp_path)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
@torch.inference_mode()
def test_lower_precisions_stay_close(precision: str) -> None:
    batch = SourceBatch.pack(SOURCES, CPU)
    exact, rounded = _load(DEMO_FOLDER).encode(batch), _load(DEMO_FOLDER, precision).encode(batch)
    if isinstance(rounded, Quantized):  # the native int8 path hands its output on in int8
        rounded = rounded.rows * rounded.scale[:, None]
    assert isinstance(exact, torch.Tensor)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.05


@torch.inference_mode()
def _int8_log_probs(model: NllbModel) -> torch.Tensor:
    """[len(TARGET), 5] of the demonstration model, through all of its passes."""
    source = SOURCES[3]
    slots = torch.arange(100, 100 + len(source))
    cache = KVCache(model.config, 200, model.kv_dtype, CPU)
    model.set_num_threads(2)
    model.write_cross_kv(model.encode(SourceBatch.pack([source], CPU)), slots, cache)
    decoded = model.decode(_teacher_forced_rows(len(TARGET), 10, slots.tolist()), cache)
    return model.project_topk(decoded, 5)[0]


@pytest.mark.parametrize("level", LEVELS)
def test_every_form_of_int8_computes_the_same(level: str) -> None:
    """Plain PyTorch, kernels between oneDNN's matmuls, and whole native passes differ by rounding only."""
    native = load_native()
    if native is None:
        pytest.skip("the native kernels were not built (no C++ compiler)")
    checkpoint = read_checkpoint(DEMO_FOLDER)
    expected = _int8_log_probs(NllbModel(checkpoint, "int8", CPU, use_native=False))
    native.set_level(level)
    try:
        if native.level != level:
            pytest.skip(f"this processor has no {level}")
        model = NllbModel(checkpoint, "int8", CPU)
        assert (model.passes is not None) is (level in ("vnni", "amx"))
        assert (model.fused is not None) is (level not in ("vnni", "amx"))
        torch.testing.assert_close(_int8_log_probs(model), expected, rtol=0.05, atol=0.15)
    finally:
        native.set_level(LEVELS[-1])
