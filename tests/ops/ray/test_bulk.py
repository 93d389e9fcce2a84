"""`nllbd bulk --engine ray`, on a Ray cluster in a network namespace of its own: the output is that of one engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ops, pytest.mark.timeout(240)]
WORKER = "ray::Worker"
NUM_LINES = 600
ENVIRON = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"The train number {number} leaves from here.\n" for number in range(NUM_LINES)), "utf-8")
    return path


def bulk(source: Path, out: Path, *options: str) -> list[str]:
    command = [
        str(Path(sys.executable).with_name("nllbd")),
        "bulk",
        str(source),
        str(out),
        "--from",
        "en",
        "--to",
        "fr",
    ]
    return [*command, "--num-beams", "1", *options]


@pytest.fixture
def on_ray(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command under way with two workers, in a namespace where only loopback is."""
    pytest.importorskip("ray")
    if os.geteuid() != 0:
        pytest.skip("needs root: a network namespace")
    options = ("--engine", "ray", "--ray-workers", "2", "--num-threads", "1")
    command = bulk(tmp_path / "lines.txt", tmp_path / "ray.txt", *options)
    inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command]
    process = subprocess.Popen(inside, env=os.environ | ENVIRON, stderr=subprocess.PIPE, text=True)
    yield process
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
        child.kill()
    process.kill()
    process.wait()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any(WORKER in part for part in child.cmdline()[:1])]


def wait_for_progress(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, "nothing was translated"
        time.sleep(0.05)


def test_the_output_is_that_of_one_engine_though_a_worker_is_killed(
    lines: Path, tmp_path: Path, on_ray: subprocess.Popen[str]
) -> None:
    alone = tmp_path / "alone.txt"
    subprocess.run(bulk(lines, alone), check=True, timeout=120)
    wait_for_progress(tmp_path / "ray.txt.partial")
    killed = workers_of(on_ray)
    assert len(killed) == 2
    os.kill(killed[0].pid, signal.SIGKILL)
    _, said = on_ray.communicate(timeout=180)
    assert on_ray.returncode == 0, said
    assert (tmp_path / "ray.txt").read_text("utf-8") == alone.read_text("utf-8")
