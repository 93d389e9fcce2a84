"""`nllbd translate` above its backends: order, windows, errors, standard input. The backends: test_backends.py."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nllbd.cli import main
from nllbd.commands import translate
from nllbd.commands.backends import Ask, Translated
from nllbd.errors import UnknownLanguage


class FakeBackend:
    """Answers in upper case; groups finish in the reverse of their order."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.ask: Ask | None = None
        self.num_open = self.max_open = 0
        self.closed = False

    async def __aenter__(self) -> FakeBackend:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated]:
        self.asked.append(texts)
        self.ask = ask
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        for _ in range(10 - len(self.asked) % 10):
            await asyncio.sleep(0)
        self.num_open -= 1
        if "bad" in texts:
            raise UnknownLanguage("unknown language 'xx'", field="target_lang")
        return [Translated(text.upper(), ("truncated",) if text == "long" else ()) for text in texts]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(translate, "open_backend", lambda settings, url: fake)
    return fake


@pytest.fixture
def stdin() -> Iterator[Callable[[bytes], None]]:
    """Standard input of the process (descriptor 0) from bytes."""
    saved = os.dup(0)

    def put(content: bytes) -> None:
        read_end, write_end = os.pipe()
        os.dup2(read_end, 0)
        os.close(read_end)
        assert len(content) < 60_000, "more than a pipe holds"
        os.write(write_end, content)
        os.close(write_end)

    yield put
    os.dup2(saved, 0)
    os.close(saved)


def test_arguments(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--from", "en", "--to", "fr", "one", "two\nlines"]) == 0
    assert capsys.readouterr().out == "ONE\nTWO\nLINES\n"
    assert backend.ask == Ask(source="en", target="fr")
    assert backend.closed


@pytest.mark.parametrize("beams", ["--num-beams", "--beams"])
def test_search_settings(backend: FakeBackend, beams: str) -> None:
    flags = [beams, "2", "--length-penalty", "0.5", "--early-stopping", "never", "--max-length", "9"]
    assert main(["translate", "--to", "fr", "x", *flags]) == 0
    assert backend.ask == Ask("fr", None, num_beams=2, length_penalty=0.5, early_stopping="never", max_length=9)


def test_many_lines_in_order_with_a_bounded_window(
    backend: FakeBackend, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(1000)]
    stdin("\n".join(lines).encode())
    assert main(["translate", "--to", "fr"]) == 0
    assert capsys.readouterr().out.splitlines() == [line.upper() for line in lines]
    assert 1 < backend.max_open <= 5
    assert max(map(len, backend.asked)) <= 32


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\r\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"]),
    ],
)
def test_what_a_line_is(backend: FakeBackend, stdin: Callable[[bytes], None], content: bytes, texts: list[str]) -> None:
    stdin(content)
    assert main(["translate", "--to", "fr"]) == 0
    assert [text for group in backend.asked for text in group] == texts


@pytest.mark.parametrize(
    ("line", "byte"), [(b"caf\xe9 is good", 4), (b"\xff", 1), (b"ab\xed\xa0\x80", 3), (b"a\xc3", 2)]
)
def test_input_that_is_not_utf8_is_refused_where_it_stands(
    backend: FakeBackend, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str], line: bytes, byte: int
) -> None:
    stdin(b"\xef\xbb\xbffirst\nsecond\n" + line + b"\nfourth\n")
    assert main(["translate", "--to", "fr"]) == 1
    shown = capsys.readouterr()
    assert "".join(shown.out.splitlines()[:2]) in ("FIRSTSECOND", "FIRST", "")
    assert shown.err.startswith(f"nllbd: standard input: line 3 is not valid UTF-8 (byte {byte} of the line, 0x")
    assert shown.err.count("\n") == 1
    assert all("\ufffd" not in text for group in backend.asked for text in group)


def test_an_argument_that_is_not_utf8_is_refused(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--to", "fr", "good", "caf\udce9"]) == 1
    assert capsys.readouterr().err == "nllbd: text 2 is not valid UTF-8\n"
    assert backend.asked == []


@pytest.mark.parametrize(("content", "total"), [("", 0), ("a", 1), ("a\n", 1), ("a\n\nb", 3)])
def test_the_lines_of_a_file_are_counted_ahead(tmp_path: Path, content: str, total: int) -> None:
    (tmp_path / "lines.txt").write_text(content)
    saved = os.dup(0)
    file = os.open(tmp_path / "lines.txt", os.O_RDONLY)
    os.dup2(file, 0)
    try:
        assert translate._num_lines_ahead() == total
        assert os.read(0, 10).decode() == content
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(file)


def test_the_lines_of_a_pipe_are_not(stdin: Callable[[bytes], None]) -> None:
    stdin(b"a\nb\n")
    assert translate._num_lines_ahead() is None


def test_progress_says_how_many_there_are(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    seen = asyncio.Event()
    monkeypatch.setattr(translate.Progress, "update", lambda _, state: (shown.append(state), seen.set()))
    unhurried = backend.translate

    async def slow(texts: list[str], ask: Ask) -> list[Translated]:
        await seen.wait()
        return await unhurried(texts, ask)

    monkeypatch.setattr(backend, "translate", slow)
    assert main(["translate", "--to", "fr", *map(str, range(40))]) == 0
    assert shown[0] == "0 of 40 done "


def test_an_error_ends_it_with_what_came_before_printed(
    backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"t{number}" for number in range(32)]
    assert main(["translate", "--to", "xx", *texts, "bad", *texts, *texts, *texts, *texts]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [text.upper() for text in texts]
    assert shown.err == "nllbd: unknown language 'xx'\n"
    assert backend.closed


def test_an_input_that_cannot_be_read(backend: FakeBackend, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = os.dup(0)
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, 0)
    try:
        assert main(["translate", "--to", "fr"]) == 1
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(folder)
    assert capsys.readouterr().err == "nllbd: standard input cannot be read: Is a directory\n"


def test_warnings_go_to_standard_error(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--to", "fr", "short", "long"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("SHORT\nLONG\n", "nllbd: text 2: warning: truncated\n")


def test_each_line_of_a_slow_typist_is_answered(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line is typed only when the first one's answer is there."""
    read_end, write_end = os.pipe()
    saved = os.dup(0)
    os.dup2(read_end, 0)
    printed = io.StringIO()
    unsaid = [b"second\n", None]

    def on_line(text: str = "") -> None:
        printed.write(text + "\n")
        following = unsaid.pop(0)
        os.close(write_end) if following is None else os.write(write_end, following)

    monkeypatch.setattr(translate, "print_line", on_line)
    os.write(write_end, b"first\n")
    try:
        assert main(["translate", "--to", "fr"]) == 0
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read_end)
    assert printed.getvalue() == "FIRST\nSECOND\n"
