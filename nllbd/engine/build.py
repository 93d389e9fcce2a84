"""Puts an engine together from its configuration: device, precision, budgets, model, runner, scheduler.

Imports torch only when the real model is asked for.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nllbd import cgroup
from nllbd.bridge.protocol import EngineConfig, EngineInfo
from nllbd.checkpoint import Checkpoint, read_checkpoint
from nllbd.engine.engine import Engine
from nllbd.engine.fake import FakeRunner, FakeScript
from nllbd.errors import ConfigError
from nllbd.sched.plan import Runner
from nllbd.sched.scheduler import WATERMARK_STEPS, Scheduler

if TYPE_CHECKING:
    import torch

    from nllbd.model.nllb import NllbModel

BLOCK_SIZE = 16
FAKE_BLOCKS = 4096
# CPU: beyond this many lanes a step only gets longer; the encode budget keeps a step under about 0.2 s at 600M
CPU_LANES, CPU_ENCODE_TOKENS = 192, 512
GPU_LANES, GPU_ENCODE_TOKENS = 1024, 8192
CPU_CACHE_SHARE, CPU_CACHE_MAX_BYTES = 0.25, 4 << 30
GPU_CACHE_SHARE = 0.8


def build_engine(config: EngineConfig, *, watermark_steps: int = WATERMARK_STEPS) -> Engine:
    """Load what `config` names and return an engine ready to step.

    `watermark_steps` is the scheduler's; 0 invites preemption (for tests of it).

    Raises CheckpointError for a bad model folder, ConfigError for a device, dtype or budget that cannot be had.
    """
    begin = time.monotonic()
    if config.runner == "fake" or config.runner.startswith("fake:"):
        runner: Runner = FakeRunner(FakeScript.parse(config.runner), block_size=BLOCK_SIZE)
        return _assemble(config, runner, FAKE_BLOCKS, "fake", "none", begin, 1, watermark_steps)
    return _build_model_engine(config, begin, watermark_steps)


def _assemble(
    config: EngineConfig,
    runner: Runner,
    num_blocks: int,
    device: str,
    dtype: str,
    begin: float,
    num_threads: int,
    watermark_steps: int,
) -> Engine:
    on_gpu = device.startswith("cuda")
    max_num_lanes = _max_num_lanes(config, on_gpu)
    max_encode_tokens = config.max_encode_tokens or (GPU_ENCODE_TOKENS if on_gpu else CPU_ENCODE_TOKENS)
    scheduler = Scheduler(
        num_blocks=num_blocks,
        block_size=BLOCK_SIZE,
        max_num_lanes=max_num_lanes,
        max_encode_tokens=max_encode_tokens,
        max_num_beams=config.max_num_beams,
        max_waiting_segments=config.max_waiting_segments,
        max_waiting_tokens=config.max_waiting_tokens,
        watermark_steps=watermark_steps,
    )
    info = EngineInfo(
        device=device,
        dtype=dtype,
        num_blocks=num_blocks,
        block_size=BLOCK_SIZE,
        max_num_lanes=max_num_lanes,
        max_encode_tokens=max_encode_tokens,
        num_threads=num_threads,
        load_s=time.monotonic() - begin,
        pid=os.getpid(),
    )
    return Engine(runner, scheduler, info)


def _max_num_lanes(config: EngineConfig, on_gpu: bool) -> int:
    return config.max_num_lanes or (GPU_LANES if on_gpu else CPU_LANES)


def _build_model_engine(config: EngineConfig, begin: float, watermark_steps: int) -> Engine:
    checkpoint = read_checkpoint(Path(config.model_path))
    # threads that spin while they wait would take the cores from the event loop; must be set before torch loads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from nllbd.model.nllb import NllbModel

    device = _pick_device(config.device)
    precision = _pick_precision(config.dtype, device)
    num_threads = config.num_threads or cgroup.usable_cores()
    torch.set_num_threads(num_threads)  # for loading; the runner chooses again for each pass
    model = NllbModel(checkpoint, precision, device)
    num_blocks = _num_blocks(config, checkpoint, device, model.kv_dtype)
    runner = _make_runner(config, model, num_blocks, num_threads)
    return _assemble(config, runner, num_blocks, str(device), precision, begin, num_threads, watermark_steps)


def _make_runner(config: EngineConfig, model: NllbModel, num_blocks: int, num_threads: int) -> Runner:
    if model.device.type != "cuda" and config.runner != "gpu":
        from nllbd.engine.runner import ModelRunner

        return ModelRunner(model, num_blocks, BLOCK_SIZE, num_threads)
    from nllbd.engine.gpu_runner import GpuRunner

    runner = GpuRunner(
        model,
        num_blocks,
        BLOCK_SIZE,
        max_num_lanes=_max_num_lanes(config, model.device.type == "cuda"),
        max_num_beams=config.max_num_beams,
    )
    if model.device.type == "cuda":
        runner.warm_up()
    return runner


def _pick_device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is none of auto, cpu, cuda, cuda:N", field="device") from None
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"device {name!r} is none of auto, cpu, cuda, cuda:N", field="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"device {name!r}: this host's torch sees {found} CUDA devices", field="device")
    return device


def _pick_precision(name: str, device: torch.device) -> str:
    import torch

    has_int8 = device.type == "cpu" and hasattr(torch.ops.onednn, "qlinear_prepack")
    if name == "auto":
        return "float16" if device.type == "cuda" else "int8" if has_int8 else "float32"
    if name not in {"float32", "bfloat16", "float16", "int8"}:
        raise ConfigError(f"dtype {name!r} is none of auto, float32, bfloat16, float16, int8", field="dtype")
    if name == "int8" and not has_int8:
        raise ConfigError(f"dtype int8 is not available on {device}; use float16 or float32", field="dtype")
    return name


def _num_blocks(config: EngineConfig, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> int:
    """Blocks that fit into `kv_cache_bytes`, or into a share of the memory that is free now.

    They must hold one sentence at least, of the length and with the beams that requests get by default. Without a
    setting a CPU makes room for that whatever is free; otherwise it is for the operator to decide what should shrink.
    """
    import torch

    from nllbd.model.decoder import KVCache

    block_bytes = KVCache.bytes_per_slot(checkpoint.config, dtype) * BLOCK_SIZE
    num_least = -(-config.default_source_tokens // BLOCK_SIZE) - (-config.default_lane_tokens // BLOCK_SIZE)
    least = max(1, num_least) * block_bytes
    budget = config.kv_cache_bytes
    if not budget and device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(device)[0] * GPU_CACHE_SHARE)
    elif not budget:
        budget = max(least, min(int(cgroup.available_memory() * CPU_CACHE_SHARE), CPU_CACHE_MAX_BYTES))
    if budget < least:
        raise ConfigError(
            f"kv_cache_bytes: {budget} bytes do not hold one sentence at the default num_beams and max_length; give at "
            f"least {least} ({-(-least >> 20)}MiB is enough), or lower num_beams or max_length",
            field="kv_cache_bytes",
        )
    return budget // block_bytes
