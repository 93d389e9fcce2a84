"""A tiny sample of `python -m bench.cache`."""

from __future__ import annotations

import shutil
from typing import Any

import pytest


@pytest.mark.skipif(not shutil.which("redis-server", path="/usr/bin:/usr/sbin"), reason="redis-server is not installed")
def test_cache(run_bench: Any) -> None:
    results = run_bench("cache", "--seconds", 0.5, "--clients", 2, "--segments", 500)["results"]
    assert all(found["miss_us"] > found["hit_us"] > 0 for found in results["alone"].values())
    assert {"up", "paused", "killed"} < set(results["trouble"])
    for found in results["trouble"].values():
        assert found["alone"]["failures"] == found["redis"]["failures"] == 0
        assert found["look_p99_ms"] > 0
