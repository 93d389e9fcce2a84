"""Structured logs: JSON lines, or for people where a person looks at a terminal. Never a word of what is translated.

Standard `logging` carries everything, so libraries' messages look like ours; structlog adds fields. A request's id is
bound in a context variable by HTTP and appears in every line that the request causes. Lines are written by a thread of
their own, many at once: a stalled reader of our output must not stall the event loop, nor a line a request slow it,
nor does it hold up the process's end. Lines that nobody takes are dropped in the end; how many is logged when they flow
again, and `num_dropped` tells.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog

from nllbd.journal import journal_stream
from nllbd.log_writer import LogWriter

ROOT = "nllbd"
_MAX_FRAMES = 30
_STDERR = 2
#: Field names that could only hold text of a user; dropped wherever they appear.
FORBIDDEN_FIELDS = frozenset({"text", "texts", "translation", "translated_text", "body", "source", "output", "query"})

_Event = MutableMapping[str, Any]
_writer: LogWriter | None = None


class LogOutput:
    """The running writer. `close` writes what is queued and stops, and waits for no reader that has stalled; after it
    nothing is logged.
    """

    def __init__(self, writer: LogWriter, handler: logging.Handler) -> None:
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
    """Send all logging of the process to `stream` (default standard error; as entries where that is the journal). Call
    once, in the process's main module.

    `log_format`: `json`, `console`, or `auto` = console on a terminal.
    """
    if stream is None:
        stream = journal_stream(os.environ, _STDERR) or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    formatter = _formatter(as_json, stream.isatty())
    writer = LogWriter(stream, lambda count: formatter.format(_told("log lines were dropped", dropped=count)))
    handler = _LineHandler(writer, as_json)
    handler.setFormatter(formatter)
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
    global _writer
    _writer = writer
    return LogOutput(writer, handler)


def num_dropped() -> int:
    """Lines since the start that nobody took while there was room for them."""
    return 0 if _writer is None else _writer.num_dropped


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


class _LineHandler(logging.Handler):
    """Formats a record where it arose (time and exception are right only there) and hands the line to the writer."""

    def __init__(self, writer: LogWriter, as_json: bool) -> None:
        super().__init__()
        self.writer = writer
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self.format(record))
        except Exception:  # logging's own complaint would be written here and now, to a reader that may have stalled
            self.writer.put(self.format(_told("a log line could not be written", about=record.name)))


def _told(event: str, **fields: Any) -> logging.LogRecord:
    """A warning of the log's own, as structlog would hand it to the formatter."""
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"event": event, **fields, "logger": __name__, "level": "warning", "timestamp": moment}
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, line, None, None)
    record.__dict__ |= {"_logger": None, "_name": "warning"}
    return record


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
