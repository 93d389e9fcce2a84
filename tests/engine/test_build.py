"""Building engines: budgets from the device, typed refusals, and no torch for the fake one."""

import subprocess
import sys

import pytest

from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import DEMO_FOLDER
from nllbd.engine.build import BLOCK_SIZE, build_engine
from nllbd.errors import CheckpointError, ConfigError


def _config(**changes) -> EngineConfig:
    return EngineConfig(**{"model_path": str(DEMO_FOLDER), "device": "cpu", "kv_cache_bytes": 1 << 20, **changes})


def test_auto_is_int8_on_the_cpu() -> None:
    info = build_engine(_config(device="auto")).info
    assert (info.device, info.dtype) == ("cpu", "int8")
    assert info.num_blocks == (1 << 20) // (2 * 2 * 256 * 2 * BLOCK_SIZE)  # its KV cache is in half precision


def test_bfloat16_halves_the_cache_of_a_position() -> None:
    assert build_engine(_config(dtype="bfloat16")).info.num_blocks == (1 << 20) // (2 * 2 * 256 * 2 * BLOCK_SIZE)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"device": "tpu"}, "device"),
        ({"device": "mps"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"dtype": "int4"}, "dtype"),
        ({"kv_cache_bytes": 1000}, "kv_cache_bytes"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build_engine(_config(**changes))
    assert refused.value.field == field


def test_the_cache_holds_a_sentence_at_the_default_lengths_or_says_what_would() -> None:
    wants = {"default_source_tokens": 33, "default_lane_tokens": 4 * 511}
    least = (3 + 128) * BLOCK_SIZE * 2 * 2 * 256 * 2
    assert build_engine(_config(kv_cache_bytes=least, **wants)).info.num_blocks == 131
    with pytest.raises(ConfigError, match=f"at least {least} "):
        build_engine(_config(kv_cache_bytes=least - 1, **wants))


def test_a_missing_model_is_a_checkpoint_error(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        build_engine(_config(model_path=str(tmp_path)))


def test_the_fake_engine_never_imports_torch() -> None:
    code = (
        "import sys; from nllbd.engine.build import build_engine; from nllbd.bridge.protocol import EngineConfig;"
        "build_engine(EngineConfig('', runner='fake')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
