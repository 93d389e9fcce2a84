"""NVIDIA figures for metrics, read through NVML without CUDA: the daemon never imports torch.

`nvidia-ml-py` is optional; without it, or without a driver, there is nothing to read and the answers are 0.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of all NVIDIA devices of the machine together."""

    used_bytes: int = 0
    total_bytes: int = 0


def read_gpu_memory() -> GpuMemory:
    """As it is now; zeros without a device."""
    nvml = _nvml()
    if nvml is None:
        return GpuMemory()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        devices = [nvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
    except nvml.NVMLError:
        return GpuMemory()
    return GpuMemory(sum(int(device.used) for device in devices), sum(int(device.total) for device in devices))


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
