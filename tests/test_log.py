"""Logs: JSON lines or console, one shape for libraries and ourselves, and no word of a user's text."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
import structlog

from nllbd import log, log_writer

SECRET = "Schmetterling"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.getLogger("nllbd").setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_when_not_a_terminal() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "auto", stream)
    log.get_logger("nllbd.test").info("ready", port=8000)
    output.close()
    (line,) = lines(stream)
    assert (line["event"], line["port"], line["level"], line["logger"]) == ("ready", 8000, "info", "nllbd.test")
    assert line["timestamp"].endswith("Z")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_console_on_a_terminal() -> None:
    stream = Terminal()
    output = log.configure("INFO", "auto", stream)
    log.get_logger("nllbd.test").info("ready", port=8000)
    output.close()
    assert "ready" in stream.getvalue()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(stream.getvalue())


def test_levels_and_their_change() -> None:
    stream = io.StringIO()
    output = log.configure("WARNING", "json", stream)
    logger = log.get_logger("nllbd.test")
    logger.info("unseen")
    log.set_level("INFO")
    logger.info("seen")
    logging.getLogger("asyncio").info("library chatter")
    output.close()
    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_libraries_speak_the_same_format() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    output.close()
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("odd thing", "warning", "aiohttp.server")


def test_the_request_id_is_bound() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        log.get_logger("nllbd.test").info("inside")
    log.get_logger("nllbd.test").info("outside")
    output.close()
    inside, outside = lines(stream)
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


@pytest.mark.parametrize("name", sorted(log.FORBIDDEN_FIELDS))
def test_fields_that_hold_text_are_dropped(name: str) -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    log.get_logger("nllbd.test").info("event", **{name: SECRET})
    output.close()
    assert SECRET not in stream.getvalue()
    assert lines(stream)[0]["event"] == "event"


def test_an_exception_is_described_without_its_message() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        about = log.describe_exception(error)
    assert about["exception"] == "builtins.ValueError"
    assert "test_an_exception" in about["frames"][-1]
    assert SECRET not in json.dumps(about)


def test_exceptions_of_our_own_are_shown_whole() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    try:
        raise OSError("no space left")
    except OSError:
        log.get_logger("nllbd.test").exception("cannot write")
    output.close()
    assert "no space left" in lines(stream)[0]["exception"]


class StalledStream(io.StringIO):
    """Whose reader does not read: `write` blocks until released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        assert self.released.wait(30)
        return super().write(text)


def test_a_stalled_reader_does_not_stall_who_logs() -> None:
    stream = StalledStream()
    output = log.configure("INFO", "json", stream)
    logger = log.get_logger("nllbd.test")
    for number in range(100):
        logger.info("line", number=number)
    stream.released.set()
    output.close()
    assert [line["number"] for line in lines(stream)] == list(range(100))


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe with room for a page: the end to read from, and a stream into it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    os.close(reader)
    with contextlib.suppress(OSError):
        stream.close()


def read_lines(reader: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(os.dup(reader), "rb") as file:
        for line in file:
            yield json.loads(line)


def test_what_was_dropped_is_counted_and_told_when_lines_flow_again(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "_MAX_QUEUED", 50)
    reader, stream = pipe
    output = log.configure("INFO", "json", stream)
    logger = log.get_logger("nllbd.test")
    for number in range(1000):
        logger.info("line", number=number)
    num_dropped = log.num_dropped()
    assert num_dropped >= 1000 - 50 - 4096 // 50 - 50
    told, numbers = 0, []
    found = read_lines(reader)
    while told + len(numbers) < 1000:
        line = next(found)
        if "dropped" in line:
            assert (line["level"], line["logger"]) == ("warning", "nllbd.log")
            told += line["dropped"]
        else:
            numbers.append(line["number"])
    logger.info("line", number=1000)
    assert next(found)["number"] == 1000
    assert (told, numbers) == (num_dropped, sorted(set(numbers)))
    output.close()


def test_the_end_does_not_wait_for_a_reader_that_has_stalled(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "STALLED_S", 0.2)
    _, stream = pipe
    output = log.configure("INFO", "json", stream)
    for number in range(1000):
        log.get_logger("nllbd.test").info("line", number=number)
    began = time.monotonic()
    output.close()
    assert time.monotonic() - began < log_writer.CLOSE_S


def test_the_end_waits_for_a_reader_that_is_slow(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    output = log.configure("INFO", "json", stream)
    for number in range(1000):
        log.get_logger("nllbd.test").info("line", number=number)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(itertools.islice(read_lines(reader), 1000)))
    thread.start()
    output.close()
    thread.join(30)
    assert [line["number"] for line in found] == list(range(1000))


def test_lines_of_several_writers_stay_whole(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writers = [log_writer.LogWriter(stream, lambda _: "") for _ in range(4)]
    for number in range(300):
        for index, writer in enumerate(writers):
            writer.put(json.dumps({"writer": index, "number": number, "more": "x" * (number * 7 % 500)}))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(itertools.islice(read_lines(reader), 1200)))
    thread.start()
    for writer in writers:
        writer.close()
    thread.join(30)
    for index in range(4):
        assert [line["number"] for line in found if line["writer"] == index] == list(range(300))


def test_a_reader_who_made_the_pipe_non_blocking_gets_all_lines(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = log_writer.LogWriter(stream, lambda _: "")
    for number in range(1000):
        writer.put(json.dumps({"number": number}))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(itertools.islice(read_lines(reader), 1000)))
    thread.start()
    writer.close()
    thread.join(30)
    assert [line["number"] for line in found] == list(range(1000))


def configure_alone(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> log.LogOutput:
    """JSON without the test runner's own handlers, as in the daemon."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return log.configure("INFO", "json", stream)


def test_a_frequent_line_is_the_ordinary_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    output = configure_alone(monkeypatch, stream)
    frequent = log.FrequentLogger("nllbd.access")
    fields = {"status": 200, "duration_ms": 1.5, "client": "::1", "text": SECRET, "odd": {1: "a", "b": None}}
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        log.get_logger("nllbd.access").info("request", **fields)
        monkeypatch.setattr(logging.Logger, "handle", None)  # the frequent one makes no record
        frequent.info("request", **fields)
    output.close()
    ordinary, fast = lines(stream)
    assert len(fast.pop("timestamp")) == len(ordinary.pop("timestamp"))
    assert fast == ordinary
    assert (fast["request_id"], fast["status"], fast["logger"]) == ("abc", 200, "nllbd.access")
    assert SECRET not in stream.getvalue()


def test_a_frequent_line_of_a_lower_level_is_not_made() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    log.FrequentLogger("nllbd.access").debug("unseen")
    output.close()
    assert stream.getvalue() == ""


def test_a_frequent_line_reaches_every_handler_and_the_console(caplog: pytest.LogCaptureFixture) -> None:
    stream = Terminal()
    output = log.configure("INFO", "auto", stream)
    logging.getLogger().addHandler(caplog.handler)
    log.FrequentLogger("nllbd.access").info("request", status=200)
    logging.getLogger().removeHandler(caplog.handler)
    output.close()
    assert "request" in stream.getvalue()
    assert len(caplog.records) >= 1


def test_a_value_that_json_cannot_express_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    output = configure_alone(monkeypatch, stream)
    log.FrequentLogger("nllbd.access").info("request", number=1 << 200)
    log.FrequentLogger("nllbd.access").info("next")
    output.close()
    complaint, following = lines(stream)
    assert (complaint["event"], complaint["about"]) == ("a log line could not be written", "nllbd.access")
    assert following["event"] == "next"
    assert capfd.readouterr() == ("", "")  # not past the writer: whoever reads there may have stalled


def test_a_reader_that_is_gone_harms_nobody() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    stream.close()
    log.get_logger("nllbd.test").info("unread")
    output.close()


def test_closing_twice_is_fine_and_nothing_is_logged_after() -> None:
    stream = io.StringIO()
    output = log.configure("INFO", "json", stream)
    output.close()
    output.close()
    log.get_logger("nllbd.test").error("late")
    assert stream.getvalue() == ""
