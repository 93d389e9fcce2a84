from __future__ import annotations

import io

import pytest

from nllbd.commands.output import Progress, human_bytes, print_line, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_only_for_what_lasts() -> None:
    terminal, clock = Terminal(), Clock()
    with Progress("loading", terminal, clock) as progress:
        clock.now = 0.9
        progress.update()
        assert terminal.getvalue() == ""
        clock.now = 1.1
        progress.update("half ")
        assert terminal.getvalue().endswith("loading half (1 s)")
        shown = terminal.getvalue()
        clock.now = 1.15
        progress.update("more ")
        assert terminal.getvalue() == shown
    assert terminal.getvalue().endswith("\x1b[2K")


def test_no_progress_into_files() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("loading", stream, clock) as progress:
        clock.now = 5.0
        progress.update()
    assert stream.getvalue() == ""


def test_tables_line_up_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "B"), [("日本語", "1"), ("e\u0301", "2")])
    assert capsys.readouterr().out.splitlines() == ["NAME    B", "日本語  1", "e\u0301       2"]


def test_what_cannot_be_encoded_becomes_an_escape(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\ud800b")
    assert capsys.readouterr().out == "a\\ud800b\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1536, "1.5 KiB"), (14 << 20, "14.0 MiB"), (1 << 42, "4.0 TiB")],
)
def test_human_bytes(count: int, shown: str) -> None:
    assert human_bytes(count) == shown
