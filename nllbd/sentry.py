"""Unexpected errors, reported to a Sentry server: what broke and where in our code, and not a word of a user's.

An event is made here of named parts and nothing else: the constant text of a log line, the exception's type, its frames
(file, function, line), request id and route. The exception's message, a log line's arguments, local variables, source
lines, requests, headers and breadcrumbs are never looked at, and none of the SDK's integrations is on: there is nothing
to scrub. Knows no HTTP; what is logged as an error with an exception is what gets reported.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.utils import BadDsn

from nllbd import __version__
from nllbd.errors import ConfigError, NllbdError

FLUSH_S = 2.0
#: Events a minute; a fault that hits every request must not become a load of its own.
MAX_PER_MINUTE = 30
_MAX_FRAMES = 50
_GENERATED_ID = re.compile(r"[0-9a-f-]{16,36}")  # made by us or a proxy; anything else could be a client's own words
_OURS = "nllbd."
_REPORTERS = ("opentelemetry", "sentry_sdk", "urllib3")  # that a collector is away is for the log alone
_SUPERVISOR = "nllbd.bridge."  # its errors are the engine's death, which has no exception in this process


class Reporter(logging.Handler):
    """Sends the process's unexpected errors to `dsn`, from a thread of its own. `close` ends it in bounded time.

    Raises ConfigError for a DSN that Sentry does not know.
    """

    def __init__(self, dsn: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.ERROR)
        self._clock = clock
        self._sent_at: list[float] = []
        self.num_dropped = 0
        try:
            self._client = sentry_sdk.Client(
                dsn=dsn,
                release=f"nllbd@{__version__}",
                default_integrations=False,
                auto_enabling_integrations=False,
                auto_session_tracking=False,
                enable_backpressure_handling=False,
                include_local_variables=False,
                include_source_context=False,
                max_breadcrumbs=0,
                max_request_body_size="never",
                propagate_traces=False,
                send_client_reports=False,
                spotlight=False,
            )
        except BadDsn:
            raise ConfigError(
                "sentry_dsn: expected https://KEY@HOST/PROJECT as Sentry's project settings show it", field="sentry_dsn"
            ) from None

    def emit(self, record: logging.LogRecord) -> None:
        """Report a log record that tells of something unexpected. Never raises and never logs."""
        try:
            event = make_event(record)
            if event is not None and self._may_send():
                self._client.capture_event(event)  # type: ignore[arg-type]  # a TypedDict of the SDK's
        except Exception:
            self.num_dropped += 1  # a report that fails must not become an error of the request

    def close(self) -> None:
        """Send what is queued and stop, within FLUSH_S: whatever hangs then, the process may go."""
        closer = threading.Thread(target=self._client.close, args=(FLUSH_S,), name="sentry close", daemon=True)
        closer.start()
        closer.join(2 * FLUSH_S)
        super().close()

    def _may_send(self) -> bool:
        now = self._clock()
        self._sent_at = [at for at in self._sent_at if now - at < 60.0]
        if len(self._sent_at) >= MAX_PER_MINUTE:
            self.num_dropped += 1
            return False
        self._sent_at.append(now)
        return True


@contextmanager
def reporting(dsn: str) -> Iterator[None]:
    """Report what goes wrong in a block, what ends it included. Raises ConfigError."""
    reporter = start_reporting(dsn)
    try:
        yield
    except NllbdError:
        raise
    except Exception:
        logging.getLogger(__name__).critical("the daemon ended by an unexpected error", exc_info=True)
        raise
    finally:
        stop_reporting(reporter)


def start_reporting(dsn: str) -> Reporter:
    """A Reporter that hears of all that this process logs. Raises ConfigError."""
    reporter = Reporter(dsn)
    logging.getLogger().addHandler(reporter)
    return reporter


def stop_reporting(reporter: Reporter) -> None:
    """Detach and close; blocks for FLUSH_S or so at the most."""
    logging.getLogger().removeHandler(reporter)
    reporter.close()


def make_event(record: logging.LogRecord) -> dict[str, Any] | None:
    """The event that a log record makes; None for one that tells of nothing unexpected."""
    if record.name.startswith(_REPORTERS):
        return None
    fields: dict[str, Any] = record.msg if isinstance(record.msg, dict) else {}
    exception = _exception(record, fields)
    if exception is None and not record.name.startswith(_SUPERVISOR):
        return None
    event: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
    if record.name.startswith(_OURS):  # others put reprs into their messages, and whatever is in these
        event["logentry"] = {"message": str(fields.get("event", record.msg))}  # the template, without its arguments
    if exception is not None:
        event["exception"] = {"values": [exception]}
    event["tags"] = {"route": fields["route"]} if "route" in fields else {}
    if _GENERATED_ID.fullmatch(str(fields.get("request_id", ""))):
        event["tags"]["request_id"] = fields["request_id"]
    return event


def _exception(record: logging.LogRecord, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Type and frames, from the exception itself or from what `log.describe_exception` made of it."""
    error = fields.get("exc_info") or record.exc_info
    if error is True:
        error = sys.exc_info()
    error = error[1] if isinstance(error, tuple) else error
    if isinstance(error, NllbdError):
        return None
    if isinstance(error, BaseException):
        frames = [
            (frame.filename, frame.name, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)
        ]
        return _exception_value(type(error).__module__, type(error).__qualname__, frames)
    if isinstance(described := fields.get("exception"), str):
        module, _, name = described.rpartition(".")
        return _exception_value(module, name, (_parse_frame(line) for line in fields.get("frames", ())))
    return None


def _exception_value(module: str, name: str, frames: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    kept = list(frames)[-_MAX_FRAMES:]
    shown = [
        {"filename": _short(path), "function": function, "lineno": line, "in_app": _is_ours(path)}
        for path, function, line in kept
    ]
    return {"type": name, "module": module, "stacktrace": {"frames": shown}}


def _parse_frame(line: str) -> tuple[str, str, int]:
    """`path:lineno function`, as `log.describe_exception` writes it."""
    place, _, function = line.rpartition(" ")
    path, _, number = place.rpartition(":")
    return path, function, int(number)


def _short(path: str) -> str:
    """The path from its package on: where somebody installed us is no business of a report's."""
    _, mark, tail = path.rpartition("/nllbd/")
    return f"nllbd/{tail}" if mark else path.rpartition("/site-packages/")[2]


def _is_ours(path: str) -> bool:
    return "/nllbd/" in path and "/site-packages/" not in path.replace("/site-packages/nllbd/", "/")
