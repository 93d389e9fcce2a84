"""The command line as a person runs it: real processes, the real model, a real daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nllbd.checkpoint import DEMO_FOLDER

Run = Callable[..., subprocess.CompletedProcess[str]]
HELP_WITHIN_S = 3.0  # 0.1 s on an idle machine; asserted is the order of magnitude
SENTENCES = ["Hello, how are you today?", "Where is the train station?", "The file was not found.", "It is raining."]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("translate", …, stdin="…")`: the command in a home folder of its own, without this machine's settings."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NLLBD_")} | {"HOME": str(tmp_path)}

    def run(*argv: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nllbd", *argv]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environ | more, timeout=100, check=False
        )

    return run


def test_help_is_there_at_once(run: Run) -> None:
    began = time.monotonic()
    assert run("--help").returncode == 0
    assert time.monotonic() - began < HELP_WITHIN_S


def test_in_process_and_over_http_agree(run: Run, daemon: Any) -> None:
    common = ("translate", "--from", "en", "--to", "fr")
    local = run(*common, "--dtype", "float32", *SENTENCES)
    remote = run(*common, "--url", daemon.url, *SENTENCES)
    assert (local.returncode, remote.returncode) == (0, 0), local.stderr + remote.stderr
    assert local.stdout == remote.stdout
    assert local.stdout.splitlines()[1] == "Où est la gare ?"
    answered = daemon.translate(SENTENCES, "eng_Latn", "fra_Latn").json["translations"]
    assert remote.stdout.splitlines() == [item["text"] for item in answered]


def test_the_lines_of_standard_input_come_back_in_order(run: Run, daemon: Any) -> None:
    rows = json.loads((DEMO_FOLDER / "held_out.json").read_text(encoding="utf-8"))
    lines = [texts[0] for _, texts in rows[:120]] + ["", "  ", "12:30"]
    result = run("translate", "--from", "en", "--to", "de", "--beams", "1", "--url", daemon.url, stdin="\n".join(lines))
    assert result.returncode == 0, result.stderr
    translated = result.stdout.split("\n")[:-1]
    assert len(translated) == len(lines)
    assert translated[-3:] == ["", "  ", "12:30"]
    one_by_one = [daemon.translate(line, "en", "de", num_beams=1).json["translated_text"] for line in lines[:5]]
    assert translated[:5] == one_by_one


def test_a_typist_at_a_terminal_is_answered_line_by_line(daemon: Any, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "nllbd", "translate", "--from", "en", "--to", "fr", "--url", daemon.url]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        os.close(terminal)
        assert process.stdout is not None
        os.write(controller, b"It is raining.\n")
        assert process.stdout.readline().strip()
        os.write(controller, b"Where is the train station?\n")
        assert process.stdout.readline().strip() == "Où est la gare ?"
        os.write(controller, b"\x04")
        assert process.wait(30) == 0
    os.close(controller)


def test_interrupted_in_the_middle(daemon: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nllbd", "translate", "--from", "en", "--to", "fr", "--url", daemon.url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=tmp_path, bufsize=1, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("It is raining.\n")
        assert process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--to", "tlh"], 1, r"unknown language 'tlh'"),
        (["--to", "ita_Latn"], 1, r"not trained on Italian"),
        (["--to", "fr", "--beams", "0"], 1, r"num_beams must be from 1 to 8"),
        (["--to", "fr", "--model", "/nowhere"], 1, r"no model '/nowhere'"),
        (["--to", "fr", "--device", "cuda:99"], 2, r"cuda:99"),
        (["--to", "fr", "--dtype", "int3"], 2, r"dtype: expected one of"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(run: Run, flags: list[str], code: int, says: str) -> None:
    result = run("translate", "--from", "en", *flags, "Hello.")
    assert result.returncode == code
    assert result.stdout == ""
    assert re.fullmatch(rf"nllbd: .*{says}.*\n", result.stderr), result.stderr


def test_a_daemon_that_is_not_there(run: Run) -> None:
    result = run("translate", "--to", "fr", "--url", "http://127.0.0.1:1", "Hello.")
    assert result.returncode == 1
    assert result.stderr.startswith("nllbd: cannot reach http://127.0.0.1:1: Connection refused")


def test_a_daemons_error_is_passed_on(run: Run, daemon: Any) -> None:
    result = run("translate", "--to", "tlh", "--url", daemon.url, "Hello.")
    assert result.returncode == 1
    assert "400 unknown_language" in result.stderr


def test_serve_refuses_what_it_cannot_do_at_once(run: Run, daemon: Any) -> None:
    taken = run("serve", "--port", str(daemon.port), "--metrics-port", "0")
    assert taken.returncode != 0
    assert str(daemon.port) in taken.stderr
    assert "Traceback" not in taken.stderr
    misspelt = run("serve", NLLBD_PROT="1")
    assert (misspelt.returncode, "did you mean 'port'" in misspelt.stderr) == (2, True)
    exposed = run("serve", "--host", "0.0.0.0", "--port", "0", "--metrics-port", "0")
    assert exposed.returncode != 0
    assert "allow_anonymous" in exposed.stderr


def test_doctor_on_this_machine(run: Run) -> None:
    result = run("doctor", "--port", "0", "--metrics-port", "0")
    assert result.returncode == 0, result.stdout
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "model",
        "device",
        "port",
        "metrics",
        "redis",
        "rates",
        "database",
        "disk",
        "memory",
        "limits",
    ]


def test_settings_of_the_deployment_guide_reach_the_daemon(start_daemon: Any, run: Run, tmp_path: Path) -> None:
    """A key from a file, a smaller limit: enforced over HTTP, and the command line sends the key."""
    (tmp_path / "key").write_text("s3cret\n")
    daemon = start_daemon(api_key_file=tmp_path / "key", max_request_size=20)
    assert daemon.translate("Hello.", "en", "fr").status == 401
    assert daemon.request("POST", "/translate", {"text": "x" * 21}, X_API_Key="s3cret").status in (400, 413)
    command = ("translate", "--from", "en", "--to", "fr", "--url", daemon.url, "It is raining.")
    assert run(*command).returncode == 1
    assert run(*command, API_KEY="s3cret").returncode == 0
    assert "s3cret" not in daemon.log
    assert daemon.stop() == 0
