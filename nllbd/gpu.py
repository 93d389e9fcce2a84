"""NVIDIA figures for metrics, read through NVML without CUDA: the daemon never imports torch.

`nvidia-ml-py` is optional; without it, or without a driver, there is nothing to read and the answers are 0.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


def used_gpu_memory_bytes() -> int:
    """Bytes in use on all NVIDIA devices of the machine, 0 without any."""
    nvml = _nvml()
    if nvml is None:
        return 0
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return sum(int(nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
    except nvml.NVMLError:
        return 0


@cache
def _nvml() -> Any | None:
    """The initialised NVML module, or None. Looked for once: a driver does not appear while we run."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
