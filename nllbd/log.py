"""Structured logs: JSON lines, or for people where a person looks at a terminal. Never a word of what is translated.

Standard `logging` carries everything, so libraries' messages look like ours; structlog adds fields. A request's id is
bound in a context variable by HTTP and appears in every line that the request causes. Lines are written by a thread of
their own, many at once: a stalled reader of our output must not stall the event loop, nor a line a request slow it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog

ROOT = "nllbd"
_MAX_QUEUED = 10_000
_GATHER_S = 0.02  # how long a line waits for company: what a kill may lose, and what spares a switch of threads a line
_MAX_FRAMES = 30
#: Field names that could only hold text of a user; dropped wherever they appear.
FORBIDDEN_FIELDS = frozenset({"text", "texts", "translation", "translated_text", "body", "source", "output", "query"})

_Event = MutableMapping[str, Any]


class LogOutput:
    """The running writer. `close` writes what is queued and stops; after it nothing is logged."""

    def __init__(self, writer: _Writer, handler: logging.Handler) -> None:
        self._writer = writer
        self._handler = handler
        self._open = True
        atexit.register(self.close)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        logging.getLogger().removeHandler(self._handler)
        self._writer.close()
        atexit.unregister(self.close)


def configure(level: str = "INFO", log_format: str = "auto", stream: TextIO | None = None) -> LogOutput:
    """Send all logging of the process to `stream` (default standard error). Call once, in the process's main module.

    `log_format`: `json`, `console`, or `auto` = console on a terminal.
    """
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    writer = _Writer(stream)
    handler = _LineHandler(writer, as_json)
    handler.setFormatter(_formatter(as_json, stream.isatty()))
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_text,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return LogOutput(writer, handler)


def set_level(level: str) -> None:
    """Change the least level that is logged (SIGHUP does).

    Libraries stay at WARNING, at INFO while we debug: what they say at DEBUG has the database's parameters in it, texts
    of users and digests of keys among them.
    """
    logging.getLogger(ROOT).setLevel(level)
    least = logging.INFO if level == "DEBUG" else max(logging.WARNING, logging.getLevelName(level))
    logging.getLogger().setLevel(least)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger; `name` is a module's `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class FrequentLogger:
    """A logger for lines that come thousands of times a second: `info` and `debug` as structlog's, at a tenth its cost.

    Where JSON goes to our own writer and to nobody else, the line is made in one step, past structlog and `logging`;
    it is the same line. Anywhere else (a terminal, further handlers) it goes the way of all others.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._root = logging.getLogger()
        self._standard = logging.getLogger(name)
        self._structured = get_logger(name)

    def info(self, event: str, **fields: Any) -> None:
        self._log(logging.INFO, "info", event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._log(logging.DEBUG, "debug", event, fields)

    def _log(self, level: int, level_name: str, event: str, fields: dict[str, Any]) -> None:
        if not self._standard.isEnabledFor(level):
            return
        listening = [handler for handler in self._root.handlers if handler.level <= level]
        handler = listening[0] if len(listening) == 1 else None
        if isinstance(handler, _LineHandler) and handler.as_json and not self._standard.handlers:
            with contextlib.suppress(TypeError):  # what JSON has no form for is said there as well as it can be
                handler.writer.put(self._line(level_name, event, fields))
                return
        self._structured.log(level, event, **fields)

    def _line(self, level_name: str, event: str, fields: dict[str, Any]) -> bytes:
        line = {"event": event, **structlog.contextvars.get_contextvars(), **fields}
        line["logger"], line["level"], line["timestamp"] = self._name, level_name, datetime.now(UTC)
        if not FORBIDDEN_FIELDS.isdisjoint(line):
            line = {name: value for name, value in line.items() if name not in FORBIDDEN_FIELDS}
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Type and frames of an unexpected exception as log fields. Not its message: that may quote a user's text."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class _Writer:
    """Writes lines to a stream, in order, from a thread of its own. `put` never blocks: a full queue drops lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[bytes | str] = deque()
        self._has_lines = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nllbd-log", daemon=True)
        self._thread.start()

    def put(self, line: bytes | str) -> None:
        if len(self._lines) < _MAX_QUEUED:
            self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def close(self) -> None:
        """Returns when all is written."""
        self._closing.set()
        self._has_lines.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._has_lines.wait()
            is_last = self._closing.wait(_GATHER_S)
            self._has_lines.clear()
            self._write([self._lines.popleft() for _ in range(len(self._lines))])

    def _write(self, lines: list[bytes | str]) -> None:
        texts = [line.decode() if isinstance(line, bytes) else line for line in lines]
        try:
            self._stream.write("".join(text + "\n" for text in texts))
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads us any more; who serves translations does not end for that
            return


class _LineHandler(logging.Handler):
    """Formats a record where it arose (time and exception are right only there) and hands the line to the writer."""

    def __init__(self, writer: _Writer, as_json: bool) -> None:
        super().__init__()
        self.writer = writer
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self.format(record))
        except Exception:
            self.handleError(record)


def _formatter(as_json: bool, colors: bool) -> logging.Formatter:
    before: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any]
    if as_json:
        last = [structlog.processors.ExceptionRenderer(_render_exception), _render_json]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=colors)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _render_json(_logger: Any, _method: str, event: _Event) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _render_exception(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    return "".join(traceback.format_exception(*exc_info))


def _drop_text(_logger: Any, _method: str, event: _Event) -> _Event:
    for name in FORBIDDEN_FIELDS.intersection(event):
        del event[name]
    return event
