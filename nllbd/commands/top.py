"""Watch a daemon: lanes, queue, KV cache, tokens a second, latencies, refusals, and for an admin the busiest keys.

Reads /metrics, so it must run where the metrics port can be reached: on the daemon's host. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections import deque
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nllbd.commands.backends import base_url, key_header, open_connection, parse_url
from nllbd.commands.options import settings_from
from nllbd.commands.output import print_line
from nllbd.commands.top_figures import Figures, Scrape, compare, parse_scrape
from nllbd.config import Settings
from nllbd.errors import InvalidValue, NllbdError, NotReady

_TIMEOUT_S = 5.0
_HISTORY = 40
_MIN_INTERVAL_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: /etc/nllbd/nllbd.toml)")
    parser.add_argument("--metrics-url", metavar="URL", help="where /metrics is (default: as the settings say)")
    parser.add_argument(
        "--url", metavar="URL", help="the daemon's API, for the busiest keys (default: as the settings say)"
    )
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="file with a key of scope admin (default: api_key)"
    )
    parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    parser.add_argument("--once", action="store_true", help="look twice, print what happened between, and end")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: argparse.Namespace) -> int:
    if not args.interval >= _MIN_INTERVAL_S:
        raise InvalidValue(f"--interval: give at least {_MIN_INTERVAL_S} s", field="interval")
    settings = settings_from(args)
    source = Source(args.metrics_url or _metrics_url(settings), args.url or _api_url(settings), _key(args, settings))
    if args.once or args.json or not sys.stdout.isatty():
        return _print_once(source, args.interval, as_json=args.json)
    return _watch(source, args.interval)


class Source:
    """Where figures come from. Each look is compared with the one before."""

    def __init__(self, metrics_url: str, url: str, key: str | None) -> None:
        self.metrics_url = metrics_url
        self._metrics = parse_url(metrics_url)
        self._api = parse_url(url)
        self._header = key_header(key)
        self._before: Scrape | None = None

    def look(self) -> Figures | None:
        """What happened since the last look; None at the first. Raises NotReady, NllbdError for a strange one."""
        path = "/metrics" if self._metrics.scheme == "unix" else self._metrics.path.removesuffix("/") or "/metrics"
        status, body = self._get(self._metrics, path)
        try:
            now = parse_scrape(body.decode(), time.monotonic())
        except ValueError:
            raise NllbdError(f"{self.metrics_url} answered {status}, and not as an nllbd's /metrics does") from None
        before, self._before = self._before, now
        return None if before is None else compare(now, before, self._engine())

    def _engine(self) -> dict[str, Any] | None:
        """None without a key that is good for it."""
        if not self._header:
            return None
        status, body = self._get(self._api, "/debug/engine?integrity=0", self._header)
        try:
            found = json.loads(body) if status == 200 else None
        except ValueError:
            found = None
        return found if isinstance(found, dict) and "accounts" in found else None  # else it is no nllbd's answer

    def _get(self, parts: Any, path: str, headers: dict[str, str | bytes] | None = None) -> tuple[int, bytes]:
        try:
            with closing(open_connection(parts, _TIMEOUT_S)) as connection:
                connection.request("GET", path, headers=headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotReady(f"cannot reach {parts.geturl()}: {reason}; is the daemon running there?") from None


def _print_once(source: Source, interval_s: float, *, as_json: bool) -> int:
    source.look()
    time.sleep(interval_s)
    figures = source.look()
    assert figures is not None
    if as_json:
        print_line(json.dumps(asdict(figures), ensure_ascii=False))
        return 0
    from rich.console import Console  # a third of a second that --json can do without

    from nllbd.commands.top_view import render

    console = Console(width=None if sys.stdout.isatty() else 80)
    console.print(render(figures, source.metrics_url))
    return 0


def _watch(source: Source, interval_s: float) -> int:
    """Until Ctrl-C. A daemon that goes away is waited for."""
    from rich.console import Console
    from rich.live import Live

    from nllbd.commands.top_view import render

    source.look()  # a wrong address is said before the screen is taken
    history: deque[float] = deque(maxlen=_HISTORY)
    last: Figures | None = None
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(min(interval_s, 0.5) if last is None else interval_s)
                trouble = ""
                try:
                    last = source.look() or last
                except NllbdError as error:
                    trouble = error.message
                if last is not None:
                    history.append(0.0 if trouble else last.tokens_per_s)
                    live.update(render(last, source.metrics_url, tuple(history), trouble), refresh=True)
        except KeyboardInterrupt:
            return 0


def _metrics_url(settings: Settings) -> str:
    if not settings.metrics_port:
        raise InvalidValue("metrics_port is 0: the daemon shows no metrics; give --metrics-url", field="metrics_url")
    return base_url(settings.metrics_host, settings.metrics_port)


def _api_url(settings: Settings) -> str:
    return base_url(settings.host, settings.port)


def _key(args: argparse.Namespace, settings: Settings) -> str | None:
    if args.key_file is None:
        return settings.api_key
    try:
        return str(args.key_file.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"--key-file: cannot read {args.key_file}: {error}", field="key_file") from None
