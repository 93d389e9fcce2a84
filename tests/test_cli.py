from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nllbd import __version__, cli
from nllbd.cli import COMMANDS, main
from nllbd.config import sources


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but what a test gives."""
    monkeypatch.setattr(sources, "DEFAULT_FILE", tmp_path / "absent.toml")
    for name in [name for name in sources.os.environ if name.startswith("NLLBD_")]:
        monkeypatch.delenv(name)


def test_help_imports_neither_torch_nor_aiohttp() -> None:
    script = (
        "import sys; from nllbd.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'aiohttp', 'numpy', 'asyncio', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "translate" in result.stdout


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(re.search(rf"^  {name} +{purpose}$", shown, re.MULTILINE) for name, purpose in COMMANDS.items())


def test_no_arguments_are_misuse_and_get_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == cli.MISUSED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(purpose in shown.err for purpose in COMMANDS.values())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"nllbd {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: nllbd {name}")


@pytest.mark.parametrize(
    "argv", [["bulk"], ["--frobnicate"], ["serve", "--prot", "1"], ["serve", "--por", "1"], ["translate"], ["model"]]
)
def test_misuse_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: nllbd")


def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--port", "99999"]) == cli.MISUSED
    shown = capsys.readouterr()
    assert shown.err == "nllbd: flag --port: port: expected a whole number from 0 to 65535, got 99999\n"
    assert shown.out == ""


def test_another_error_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", "nowhere/nothing"]) == cli.FAILED
    assert re.fullmatch(r"nllbd: no model 'nowhere/nothing': looked for .*\n", capsys.readouterr().err)


#: Imported first thing in the process: sends it SIGTERM when the module in the environment is about to be imported.
STOP_AT_AN_IMPORT = """
import os, signal, sys
class Stop:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["TEST_STOP_AT"]:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Stop)
"""


@pytest.mark.parametrize(
    "moment",
    ["nllbd.commands.serve", "nllbd.config.table", "nllbd.daemon", "uvloop", "aiohttp", "nllbd.text.tokenizer"],
)
def test_a_stop_during_the_imports_of_serve_is_obeyed(moment: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOP_AT_AN_IMPORT)
    root = Path(__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": f"{root}:{tmp_path}", "TEST_STOP_AT": moment}
    command = [sys.executable, "-m", "nllbd", "serve", "--runner", "fake:wings=2", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main([]) == cli.INTERRUPTED


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        ("| head -n 1; exit ${PIPESTATUS[0]}", (0, 1), ""),
        ("> /dev/full", (1,), "nllbd: cannot write to standard output: No space left on device\n"),
        (">&-", (0,), ""),
        (">&- 2>&-", (0,), ""),
    ],
)
def test_an_output_that_takes_nothing(redirection: str, code: tuple[int, ...], says: str) -> None:
    command = f"{sys.executable} -m nllbd languages --all {redirection}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode in code
    assert result.stderr == says


def test_an_input_that_gives_nothing() -> None:
    command = f"{sys.executable} -m nllbd translate --to fr <&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "nllbd: there is no text: no argument, and standard input is closed\n"
