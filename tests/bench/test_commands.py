"""A tiny sample of each command, end to end."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.servers import Server
from nllbd.kernels.native import find_library

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.timeout(300)  # many processes, each with its libraries


def test_offline(run_bench, cache_dir: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    entrants = ["--entrants", "nllbd:int8", "ctranslate2:int8", "transformers:float32"]
    sample = ["--quick", "--beams", 1, "--sentences", 8, "--rounds", 2, "--threads", 1, "--cache-dir", cache_dir]
    record = run_bench("offline", *sample, *entrants)
    made = record["results"]["beams"]["1"]
    assert set(made["entrants"]) == {"nllbd int8", "ctranslate2 int8", "transformers float32"}
    assert made["entrants"]["transformers float32"]["equal"] == 1.0
    for entrant in made["entrants"].values():
        assert len(entrant["rounds"]) == 2
        assert entrant["target_tokens_per_s"]["low"] > 0
        assert entrant["peak_rss_mib"] > entrant["peak_rss_less_imports_mib"] > 0
    ratio = made["ratios"]["ctranslate2 int8"]["target_tokens_per_s"]
    assert ratio["count"] == 2
    assert len(record["results"]["loads"]["nllbd int8"]) == 2
    assert any("best: " in told for told in record["results"]["entrants"]["ctranslate2 int8"]["tried"])
    table = report.render("demo", tmp_path)
    assert "| offline throughput, greedy, over CTranslate2 int8 | " in table
    assert table.count("unmeasured") >= 3  # no online run, no HTTP run, no beam 4


def test_online(run_bench, cache_dir: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    sample = ["--quick", "--pool", 6, "--seconds", 0.5, "--clients", 3, "--threads", 1, "--beams", 1]
    record = run_bench("online", *sample, "--servers", "nllbd", "ctranslate2", "--cache-dir", cache_dir)
    results = record["results"]
    assert set(results["loads"]) == {"nllbd", "ctranslate2"}
    assert {"unloaded", "poisson 0.8", "bursty 0.8", "closed loop of 3"} == set(results["loads"]["nllbd"])
    assert len(results["alone_s"]) == 6
    for point in results["points"]:
        assert all(status == 200 for _, _, _, status in point["samples"])
    assert results["goodput_ratios"]["ctranslate2"]["all"]["count"] == 1


def test_micro_http(run_bench) -> None:  # type: ignore[no-untyped-def]
    record = run_bench("micro_http", "--rounds", 1, "--seconds", 0.3, "--clients", 4)
    rounds = record["results"]["rounds"]
    assert [it["failures"] for them in rounds.values() for it in them] == [0, 0]
    assert 0 < record["results"]["share"]["median"] < 1


def test_micro_kernels(run_bench) -> None:  # type: ignore[no-untyped-def]
    if find_library() is None:
        pytest.skip("the native kernels were not built (no C++ compiler)")
    record = run_bench("micro_kernels", "--rows", 4, "--repeats", 2, "--vocab", 9000)
    kernels = record["results"]["kernels"]
    assert len(kernels) == 8
    assert all(it["error"] < 0.01 for it in kernels)


# looked for, never imported: its import replaces the sockets and clocks of the whole process
@pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed")
def test_locust_users_get_what_they_ask_for() -> None:
    serve = ["-m", "nllbd", "serve", "--port", "{port}", "--metrics-port", "0", "--runner", "fake"]
    users = ["--users", "12", "--spawn-rate", "12", "--run-time", "3s", "--headless", "--only-summary"]
    with Server("daemon", serve) as server:
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", "bench/locustfile.py", *users, "--host", server.url],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chat message" in done.stdout + done.stderr
