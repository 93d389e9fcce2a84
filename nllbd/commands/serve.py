"""Run the daemon until SIGTERM or SIGINT. Every setting is a flag; `nllbd config show` tells where each came from."""

from __future__ import annotations

import argparse

from nllbd.commands.options import add_settings, settings_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    from nllbd import daemon  # aiohttp and uvloop: not before the settings are known to be good

    return daemon.run(settings, reload=lambda: settings_from(args))
