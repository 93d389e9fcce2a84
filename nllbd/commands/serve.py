"""Run the daemon until SIGTERM or SIGINT. Every setting is a flag; `nllbd config show` tells where each came from."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from nllbd.commands.options import add_settings, settings_from
from nllbd.errors import NllbdError
from nllbd.systemd import Notifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    with _telling_why_not():
        settings = settings_from(args)
        from nllbd import daemon  # aiohttp and uvloop: not before the settings are known to be good

        return daemon.run(settings, reload=lambda: settings_from(args))


@contextlib.contextmanager
def _telling_why_not() -> Iterator[None]:
    """`systemctl status` of a daemon that could not start shows the reason, not just an exit code."""
    try:
        yield
    except NllbdError as error:
        notifier = Notifier.from_environment(os.environ)
        notifier.status(f"not started: {error.message}")
        notifier.close()
        raise
