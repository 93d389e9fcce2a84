"""CUDA graphs by shape: what a step launches is recorded once and replayed from then on. Unmeasured.

Knows nothing of what is recorded but that it works on tensors that keep their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import torch


class GraphPool:
    """One graph for each key, recorded at the key's second use; the first runs as it is, so that all is compiled.

    All share one memory pool, as they run one after another. On other devices than CUDA everything runs as it is.
    """

    def __init__(self, device: torch.device, *, enabled: bool = True) -> None:
        self._enabled = enabled and device.type == "cuda"
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._memory = torch.cuda.graph_pool_handle() if self._enabled else None

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Do what `function` does; under one key it must always launch the same on the same tensors."""
        if not self._enabled:
            function()
        elif key not in self._graphs:
            function()
            self._graphs[key] = None
        else:
            graph = self._graphs[key]
            if graph is None:
                graph = self._graphs[key] = self._record(function)
            graph.replay()

    def time_ms(self, key: Hashable, function: Callable[[], None], times: int) -> float:
        """Milliseconds of the device for each of `times` runs in a row; the key must have been run twice."""
        if not self._enabled:
            started = time.perf_counter()
            for _ in range(times):
                function()
            return (time.perf_counter() - started) * 1e3 / times
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(times):
            self.run(key, function)
        end.record()
        end.synchronize()
        took_ms: float = begin.elapsed_time(end)
        return took_ms / times

    def __len__(self) -> int:
        return sum(graph is not None for graph in self._graphs.values())

    def _record(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads of the process do on the device is none of this recording's business
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            function()
        return graph
