"""The whole HTTP surface, fuzzed from its own OpenAPI document against a real daemon: documented statuses only, answers
as documented, never a 500, and nothing unexpected in the log.

A sample; `FUZZ_EXAMPLES=500 python -m pytest tests/http/test_fuzz.py --timeout 3600` goes on for longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "8")
WITHIN_S = 90.0
API_KEY = "fuzz-fuzz-fuzz"
#: 501 is how this server says that it does not do what a dialect asks; 503 that it is full, 504 that a
#: request gave it too little time.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["1xx", "2xx", "3xx", "4xx", 501, 503, 504]
"""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URL, log) of a daemon with the echoing engine, to which may come who has the key and who has none."""
    folder = tmp_path_factory.mktemp("fuzz")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {
        "HOME": str(folder),
        "API_KEY": API_KEY,
        "JWT_SECRET": "j" * 32,
        "NLLBD_ALLOW_ANONYMOUS": "true",
        "NLLBD_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "nllbd", "serve", "--runner", "fake", "--port", "0", "--metrics-port", "0"]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environ)
    try:
        end = time.monotonic() + WITHIN_S
        while '"event":"ready"' not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield log.read_text().partition('"url":"')[2].partition('"')[0], log
        assert process.poll() is None, "the daemon ended while it was fuzzed"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("credentials", [(), ("-H", f"X-API-Key: {API_KEY}")], ids=["anonymous", "key"])
@pytest.mark.timeout(0 if "FUZZ_EXAMPLES" in os.environ else 240)
def test_documented_answers_only(daemon: tuple[str, Path], tmp_path: Path, credentials: tuple[str, ...]) -> None:
    url, log = daemon
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-examples", EXAMPLES]
    command += ["--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--suppress-health-check", "all"]
    command += ["--generation-database", "none", *credentials]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "unexpected error" not in log.read_text()
