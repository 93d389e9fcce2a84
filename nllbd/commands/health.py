"""Ask a running daemon whether it serves. Exit code 0 if it does, 1 if it does not: what health checks want.

  nllbd health           would a translation be accepted now? (GET /readyz)
  nllbd health --live    does the process answer at all? (GET /livez)

Without --url the daemon is the one that the same settings (environment, file) would start. Standard library only, no
credentials: it starts in a tenth of a second, and an image needs no curl.
"""

from __future__ import annotations

import argparse
import http.client
import json
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from nllbd.commands.backends import base_url, open_connection, parse_url
from nllbd.commands.options import settings_from
from nllbd.commands.output import print_line
from nllbd.errors import NotReady

_MOST_BYTES = 1 << 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: /etc/nllbd/nllbd.toml)")
    parser.add_argument("--url", metavar="URL", help="http://HOST:PORT or unix:/path (default: as the settings say)")
    parser.add_argument("--live", action="store_true", help="whether it is alive, though it may be loading or draining")
    parser.add_argument("--timeout", type=float, default=4.0, metavar="S", help="seconds to wait (default: 4)")


def run(args: argparse.Namespace) -> int:
    url = args.url or _url_of_settings(args)
    status, body = _get(url, "/livez" if args.live else "/readyz", args.timeout)
    if status != HTTPStatus.OK:
        raise NotReady(f"{url} answered {status}: {_message(body)}")
    print_line(f"{url} is {'alive' if args.live else 'ready'}")
    return 0


def _url_of_settings(args: argparse.Namespace) -> str:
    settings = settings_from(args)
    return base_url(settings.host, settings.port)


def _get(url: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    parts = parse_url(url)
    prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
    try:
        with closing(open_connection(parts, timeout_s)) as connection:
            connection.request("GET", prefix + path)
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NotReady(f"cannot reach {url}: {reason}") from None


def _message(body: bytes) -> str:
    """What the daemon says is the matter; the beginning of the body if something else answered."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace").strip() or "nothing"
