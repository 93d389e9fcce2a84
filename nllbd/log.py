"""Structured logs: JSON lines, or for people where a person looks at a terminal. Never a word of what is translated.

Standard `logging` carries everything, so libraries' messages look like ours; structlog adds fields. A request's id is
bound in a context variable by HTTP and appears in every line that the request causes. Lines are written by a thread of
their own: a stalled reader of our output must not stall the event loop.
"""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import traceback
from collections.abc import MutableMapping
from logging.handlers import QueueHandler, QueueListener
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog

ROOT = "nllbd"
_MAX_QUEUED = 10_000
_MAX_FRAMES = 30
#: Field names that could only hold text of a user; dropped wherever they appear.
FORBIDDEN_FIELDS = frozenset({"text", "texts", "translation", "translated_text", "body", "source", "output", "query"})

_Event = MutableMapping[str, Any]


class LogOutput:
    """The running writer. `close` writes what is queued and stops; after it nothing is logged."""

    def __init__(self, listener: QueueListener, handler: QueueHandler) -> None:
        self._listener = listener
        self._handler = handler
        self._open = True
        atexit.register(self.close)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        atexit.unregister(self.close)


def configure(level: str = "INFO", log_format: str = "auto", stream: TextIO | None = None) -> LogOutput:
    """Send all logging of the process to `stream` (default standard error). Call once, in the process's main module.

    `log_format`: `json`, `console`, or `auto` = console on a terminal.
    """
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    handler = _QueueHandler(queue.Queue(_MAX_QUEUED))
    handler.setFormatter(_formatter(as_json, stream.isatty()))
    listener = QueueListener(handler.queue, logging.StreamHandler(stream))
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
    listener.start()
    return LogOutput(listener, handler)


def set_level(level: str) -> None:
    """Change the least level that is logged (SIGHUP does). Libraries stay at WARNING unless we debug."""
    logging.getLogger(ROOT).setLevel(level)
    logging.getLogger().setLevel(level if level == "DEBUG" else max(logging.WARNING, logging.getLevelName(level)))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger; `name` is a module's `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Type and frames of an unexpected exception as log fields. Not its message: that may quote a user's text."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class _QueueHandler(QueueHandler):
    """Formats a record where it arose (time and exception are right only there) and hands the line to the writer.

    A full queue drops lines rather than block the event loop.
    """

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return logging.makeLogRecord({"msg": self.format(record), "levelno": record.levelno, "name": record.name})

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


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
