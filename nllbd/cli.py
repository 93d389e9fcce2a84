"""The command line: finds the command, runs it, turns every expected failure into one line and an exit code.

Each command is a module of `nllbd.commands` with `add_arguments(parser)` and `run(args) -> int`; it is imported only
when it is called, so `nllbd --help` costs nothing. Exit codes: 0 done, 1 failed, 2 wrong usage or settings,
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TextIO

from nllbd import __version__, signals
from nllbd.commands.output import OutputError, flush_output
from nllbd.errors import ConfigError, NllbdError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

#: Command → what it does, as `nllbd --help` says it.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "serve": "run the daemon",
        "translate": "translate texts from arguments or standard input",
        "bulk": "translate a file: txt, jsonl, csv, tsv",
        "languages": "list the languages of a model",
        "top": "watch a daemon: lanes, queue, tokens a second, latencies, busiest keys",
        "config": "show, check or write down the settings",
        "health": "ask a running daemon whether it serves; for health checks",
        "doctor": "check model, device, ports, disk and limits, and say what to do",
        "keys": "create, list, revoke and rotate API keys",
        "db": "check and upgrade the tables of the database",
        "model": "pull, list, describe, verify and quantize model folders",
        "ops": "checklists, backup and restore, capacity, audit log",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (argparse itself exits with 0 for --help, 2 for misuse)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and arguments[:1] == ["serve"]:
        signals.prepare()
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us: write into nothing
        sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    try:
        code = _run(arguments)
        flush_output()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at exit
        return FAILED if error.reader_left else _refuse(error.message, FAILED)
    except ConfigError as error:
        return _refuse(error.message, FAILED if error.may_pass else MISUSED)
    except NllbdError as error:
        return _refuse(error.message, FAILED)
    return code


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _run(arguments: list[str]) -> int:
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return MISUSED
    if arguments[0] not in COMMANDS:
        parser.parse_args(arguments)  # exits: help, version or a complaint
        return MISUSED
    name = arguments[0]
    module = importlib.import_module(f"nllbd.commands.{name}")
    command = argparse.ArgumentParser(
        prog=f"nllbd {name}", description=module.__doc__, formatter_class=_Formatter, allow_abbrev=False
    )
    module.add_arguments(command)
    return int(module.run(command.parse_args(arguments[1:])))


def _parser() -> argparse.ArgumentParser:
    """The parser of what comes before a command."""
    purposes = "\n".join(f"  {name:10} {purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="nllbd",
        description="A server for Meta's NLLB-200 translation models.",
        epilog=f"commands:\n{purposes}\n\n`nllbd COMMAND --help` explains a command.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nllbd {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=tuple(COMMANDS), help="see below")
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written; room for long flags in the left column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"nllbd: {message}\n")
    return code
