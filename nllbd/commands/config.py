"""Settings: `show` what is in effect and where it comes from, `check` it, write a `sample` file, print the `openapi`
document of the HTTP interface."""

from __future__ import annotations

import argparse
import json

from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import print_line, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="the effective settings with their origin, secrets masked")
    show.add_argument("--json", action="store_true", help="as JSON")
    add_settings(show)
    add_settings(actions.add_parser("check", help="say whether the daemon could start with these settings"))
    sample = actions.add_parser("sample", help="a TOML file with every setting and its default")
    sample.add_argument("--markdown", action="store_true", help="as a table for a document")
    actions.add_parser("openapi", help="the OpenAPI document of the HTTP interface")


def run(args: argparse.Namespace) -> int:
    return {"show": _show, "check": _check, "sample": _sample, "openapi": _openapi}[args.action](args)


def _show(args: argparse.Namespace) -> int:
    from nllbd.config.render import shown

    rows = shown(settings_from(args))
    if args.json:
        print_line(json.dumps({name: {"value": value, "origin": origin} for name, value, origin in rows}, indent=2))
    else:
        print_table(("NAME", "VALUE", "ORIGIN"), rows)
    return 0


def _check(args: argparse.Namespace) -> int:
    from nllbd.checkpoint import read_checkpoint, resolve_model
    from nllbd.job import check_settings

    settings = settings_from(args)
    checkpoint = read_checkpoint(resolve_model(settings.model, settings.model_dir))
    check_settings(settings, checkpoint)
    for note in settings.notes:
        print_line(f"note: {note}")
    print_line(f"ok: the settings are valid, model {checkpoint.name} is there")
    return 0


def _sample(args: argparse.Namespace) -> int:
    from nllbd.config import render

    print_line((render.markdown() if args.markdown else render.sample()).rstrip("\n"))
    return 0


def _openapi(args: argparse.Namespace) -> int:
    from nllbd.http.openapi import document

    print_line(json.dumps(document(), indent=2, ensure_ascii=False))
    return 0
