"""GPU hosts are often offline and preinstalled: what engine, model and GPU benchmark may import is a short list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

#: What such a host may lack: nllbd can use these, here they must not be needed.
ABSENT = (
    "msgspec", "structlog", "orjson", "sentencex", "py3langid", "redis", "rich", "sqlalchemy", "pydantic", "hypothesis",
    "ctranslate2", "sacrebleu", "matplotlib", "locust", "xdist", "numba", "scipy", "pytest_asyncio",
)  # fmt: skip
MODULES = (
    "nllbd.engine.build",
    "nllbd.engine.engine",
    "nllbd.engine.gpu_runner",
    "nllbd.model.paged",
    "nllbd.model.nllb",
    "nllbd.text.tokenizer",
    "bench.gpu",
    "bench.gpu_steps",
    "bench.exactness",
    "bench.widen",
    "bench.offline",
)
BLOCK = f"""
import sys
class Filter:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in {set(ABSENT)!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Filter, sys.meta_path)
"""


@pytest.mark.parametrize("module", MODULES)
def test_is_imported_with_what_a_gpu_host_has(module: str) -> None:
    code = f"{BLOCK}\nimport {module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_translates_with_what_a_gpu_host_has() -> None:
    code = f"""{BLOCK}
from bench.exactness import make_requests, run_engine
from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import DEMO_FOLDER
from nllbd.engine.build import build_engine
config = EngineConfig(str(DEMO_FOLDER), device='cpu', dtype='float32', runner='gpu', kv_cache_bytes=1 << 24)
outcomes = run_engine(build_engine(config), make_requests(2, 0, seed=0), seed=0)
sys.exit(not all(outcome.hypotheses for outcome in outcomes.values()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_without_a_gpu_the_benchmark_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    script = Path(__file__).parents[2] / "bench" / "gpu.sh"
    environment = dict(os.environ) | {"PYTHON": sys.executable}
    result = subprocess.run([script], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 3
    assert result.stderr.strip() == "no CUDA device: nothing measured"
