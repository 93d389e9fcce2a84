"""What a person waits for: `nllbd --help`, the daemon's start to ready, the first translation.

    python -m bench.startup [--runs 5] [--json startup.json] [-- --model DIR --dtype float32 …]

Real processes, one after the other; what stands behind `--` goes to `nllbd serve`. Printed are median and worst. The
goals for the bundled model on two cores: help 0.3 s, ready 5 s. The first run finds the files uncached if you drop
the page cache before; otherwise all are warm.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.ports import free_port

TEXT = "Where is the train station? I would like a cup of coffee, please."
GOALS_S = {"help": 0.3, "ready": 5.0}
GIVE_UP_S = 120.0


@dataclass(frozen=True)
class Waits:
    """One run's waits, in seconds. `first` and `second` are the same request, sent twice."""

    help: float
    listening: float
    ready: float
    first: float
    second: float


def main() -> None:
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep the results here as well")
    args = parser.parse_args(arguments[:at])
    about = describe(arguments[at + 1 :])
    print(" · ".join(f"{name} {value}" for name, value in about.items()))
    runs = [measure(arguments[at + 1 :]) for _ in range(args.runs)]
    for name in Waits.__dataclass_fields__:
        waits = [getattr(run, name) for run in runs]
        goal = f"   goal {GOALS_S[name]:g} s" if name in GOALS_S else ""
        print(f"{LABELS[name]:38} median {statistics.median(waits):6.3f} s   worst {max(waits):6.3f} s{goal}")
    if args.json:
        results = {"about": about, "runs": [vars(run) for run in runs]}
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


LABELS = {
    "help": "nllbd --help",
    "listening": "serve: start to /livez",
    "ready": "serve: start to ready",
    "first": "first translation (2 sentences)",
    "second": "the same again",
}


def describe(flags: Sequence[str]) -> dict[str, str]:
    """Hardware, versions and what was asked for."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    return {
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "torch": version("torch"),
        "nllbd": version("nllbd"),
        "flags": " ".join(flags) or "(none: demo model)",
    }


def measure(flags: Sequence[str]) -> Waits:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nllbd", "--help"], stdout=subprocess.DEVNULL, check=True)
    help_s = time.perf_counter() - began
    port = free_port()
    command = [sys.executable, "-m", "nllbd", "serve", "--port", str(port), "--metrics-port", "0", *flags]
    began = time.perf_counter()
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(daemon, port, "/livez")
        listening_s = time.perf_counter() - began
        wait_for(daemon, port, "/readyz")
        ready_s = time.perf_counter() - began
        return Waits(help_s, listening_s, ready_s, translate(port), translate(port))
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(GIVE_UP_S)


def wait_for(daemon: subprocess.Popen[bytes], port: int, path: str) -> None:
    end = time.perf_counter() + GIVE_UP_S
    while time.perf_counter() < end:
        if daemon.poll() is not None:
            sys.exit(f"nllbd serve ended with exit code {daemon.returncode}: run it by hand to see why")
        try:
            if request(port, "GET", path) == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        time.sleep(0.01)
    sys.exit(f"{path} was not 200 within {GIVE_UP_S:.0f} s")


def translate(port: int) -> float:
    """Seconds for one request of two sentences."""
    body = json.dumps({"text": TEXT, "source_lang": "en", "target_lang": "fr"})
    began = time.perf_counter()
    status = request(port, "POST", "/translate", body)
    if status != http.HTTPStatus.OK:
        sys.exit(f"the translation was answered with {status}")
    return time.perf_counter() - began


def request(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


if __name__ == "__main__":
    main()
