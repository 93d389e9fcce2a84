from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.bulk import run as bulk
from nllbd.bulk.formats import Record, format_of
from nllbd.bulk.journal import Journal, Progress
from nllbd.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidValue,
    LanguageNotDetected,
    NllbdError,
    Overloaded,
    Unauthorized,
)


class Listener:
    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []

    def advanced(self, progress: Progress) -> None:
        pass

    def failed(self, record: Record, error: NllbdError) -> None:
        self.failures.append((record.number, error.code))


async def upper(texts: list[str]) -> list[str]:
    await asyncio.sleep(0)
    return [text.upper() for text in texts]


async def run_file(folder: Path, translate: Any, listener: Listener | None = None, **options: Any) -> Progress:
    path = folder / "in.txt"
    with path.open("rb") as source, Journal(path, folder / "out.txt", {"target": "x"}, **options) as journal:
        return await bulk.run(source, format_of(None, path, (), "x"), journal, translate, listener or Listener())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_FIRST_PAUSE_S", 0.001)


def write(folder: Path, count: int) -> str:
    content = "".join(f"line {number}\n" for number in range(count))
    (folder / "in.txt").write_text(content)
    return content


@given(st.lists(st.integers(1, 120), max_size=5), st.integers(0, 400), st.binary(max_size=40))
async def test_wherever_it_breaks_off_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, breaks: list[int], count: int, torn: bytes
) -> None:
    """`translate` fails after so many texts; what was written and not yet committed is torn."""
    folder = tmp_path_factory.mktemp("bulk")
    content = write(folder, count)
    for most in breaks:
        left = most

        async def fails(texts: list[str]) -> list[str]:
            nonlocal left
            left -= len(texts)
            if left < 0:
                raise Unauthorized("no")
            return await upper(texts)

        try:
            await run_file(folder, fails)
            break
        except Unauthorized:
            with (folder / "out.txt.partial").open("ab") as stream:
                stream.write(torn)
    if not (folder / "out.txt").exists():
        await run_file(folder, upper)
    assert (folder / "out.txt").read_text() == content.upper()
    assert {path.name for path in folder.iterdir()} == {"in.txt", "out.txt"}


async def test_what_passes_is_tried_again(tmp_path: Path) -> None:
    content = write(tmp_path, 50)
    calls = 0

    async def overloaded(texts: list[str]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise Overloaded("later", retry_after_s=0.001)
        return await upper(texts)

    await run_file(tmp_path, overloaded)
    assert (tmp_path / "out.txt").read_text() == content.upper()


async def test_it_does_not_try_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 5)
    monkeypatch.setattr(bulk, "PATIENCE_S", 0.05)

    async def overloaded(texts: list[str]) -> list[str]:
        raise Overloaded("later", retry_after_s=0.001)

    with pytest.raises(Overloaded):
        await run_file(tmp_path, overloaded)


async def test_too_much_at_once_is_halved(tmp_path: Path) -> None:
    content = write(tmp_path, 100)

    async def slow(texts: list[str]) -> list[str]:
        if len(texts) > 5:
            raise DeadlineExceeded("too many")
        return await upper(texts)

    await run_file(tmp_path, slow)
    assert (tmp_path / "out.txt").read_text() == content.upper()


async def test_a_record_that_fails_stands_untranslated_and_is_named(tmp_path: Path) -> None:
    content = write(tmp_path, 70)
    listener = Listener()

    async def picky(texts: list[str]) -> list[str]:
        if {"line 7", "line 63"} & set(texts):
            raise LanguageNotDetected("what is this?")
        return await upper(texts)

    progress = await run_file(tmp_path, picky, listener)
    expected = content.upper().replace("LINE 7\n", "line 7\n").replace("LINE 63\n", "line 63\n")
    assert (tmp_path / "out.txt").read_text() == expected
    assert (progress.records, progress.failed) == (70, 2)
    assert sorted(listener.failures) == [(8, "language_not_detected"), (64, "language_not_detected")]
    noted = [json.loads(line) for line in (tmp_path / "out.txt.failed").read_text().splitlines()]
    assert noted == [
        {"record": number, "code": "language_not_detected", "message": "what is this?"} for number in (8, 64)
    ]


@pytest.mark.parametrize("error", [InternalError("the engine fails on it"), InvalidValue("a surrogate in it")])
async def test_a_record_that_the_engine_fails_on_does_not_end_the_run(tmp_path: Path, error: NllbdError) -> None:
    content = write(tmp_path, 100)
    asked = 0

    async def poisoned(texts: list[str]) -> list[str]:
        nonlocal asked
        if {"line 40", "line 41"} & set(texts):
            asked += 1
            raise error
        return await upper(texts)

    listener = Listener()
    progress = await run_file(tmp_path, poisoned, listener)
    expected = content.upper().replace("LINE 40\n", "line 40\n").replace("LINE 41\n", "line 41\n")
    assert (tmp_path / "out.txt").read_text() == expected
    assert (progress.failed, sorted(listener.failures)) == (2, [(41, error.code), (42, error.code)])
    assert asked <= 20  # the daemon's other users suffer from each


async def test_an_engine_that_fails_on_everything_ends_the_run_and_blames_no_record(tmp_path: Path) -> None:
    content = write(tmp_path, 300)
    is_broken = False

    async def breaks(texts: list[str]) -> list[str]:
        nonlocal is_broken
        is_broken = is_broken or "line 100" in texts
        if is_broken:
            raise InternalError("the engine has failed")
        return await upper(texts)

    with pytest.raises(InternalError):
        await run_file(tmp_path, breaks)
    assert not (tmp_path / "out.txt.failed").exists()
    await run_file(tmp_path, upper)
    assert (tmp_path / "out.txt").read_text() == content.upper()


async def test_notes_of_failures_are_not_doubled_when_a_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 200)

    async def picky(texts: list[str]) -> list[str]:
        if "line 7" in texts:
            raise LanguageNotDetected("what is this?")
        if "line 150" in texts:
            raise Unauthorized("no")
        return await upper(texts)

    with pytest.raises(Unauthorized):
        await run_file(tmp_path, picky)
    with (tmp_path / "out.txt.failed").open("a") as stream:
        stream.write('{"record": 9')  # torn by a kill
    progress = await run_file(tmp_path, upper)
    assert progress.failed == 1
    assert [json.loads(line)["record"] for line in (tmp_path / "out.txt.failed").read_text().splitlines()] == [8]
    with pytest.raises(InvalidValue, match="is there already"):
        await run_file(tmp_path, upper)
    (tmp_path / "out.txt").unlink()
    await run_file(tmp_path, upper)
    assert not (tmp_path / "out.txt.failed").exists()


async def test_what_stands_before_a_damaged_line_is_done(tmp_path: Path) -> None:
    write(tmp_path, 40)
    whole = (tmp_path / "in.txt").read_bytes()
    (tmp_path / "in.txt").write_bytes(whole + b"\xff\n")
    with pytest.raises(InvalidValue, match="line 41 is not valid UTF-8"):
        await run_file(tmp_path, upper)
    assert json.loads((tmp_path / "out.txt.progress").read_text())["records"] == 32


async def test_only_the_same_run_is_continued(tmp_path: Path) -> None:
    write(tmp_path, 100)

    async def fails(texts: list[str]) -> list[str]:
        if "line 50" in texts:
            raise Unauthorized("no")
        return await upper(texts)

    with pytest.raises(Unauthorized):
        await run_file(tmp_path, fails)
    content = write(tmp_path, 101)
    with pytest.raises(InvalidValue, match="another input: --restart"):
        await run_file(tmp_path, upper)
    (tmp_path / "out.txt.progress").write_text("{")
    with pytest.raises(InvalidValue, match="damaged"):
        await run_file(tmp_path, upper)
    await run_file(tmp_path, upper, restart=True)
    assert (tmp_path / "out.txt").read_text() == content.upper()
    with pytest.raises(InvalidValue, match="is there already"):
        await run_file(tmp_path, upper)


async def test_two_at_once_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with (
        Journal(tmp_path / "in.txt", tmp_path / "out.txt", {"target": "x"}),
        pytest.raises(NllbdError, match="another process is writing it"),
    ):
        await run_file(tmp_path, upper)
