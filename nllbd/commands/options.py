"""Command-line flags made from the table of settings, and back into `load_settings`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from nllbd.config import ROWS, Row, Settings, load_settings

_PREFIX = "setting_"

#: Settings that matter to a command which runs a model itself.
MODEL_SETTINGS = (
    "model",
    "model_dir",
    "device",
    "dtype",
    "num_threads",
    "max_num_lanes",
    "max_encode_tokens",
    "kv_cache_bytes",
)


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add `--config` and a flag for each of `names` (default: every setting), grouped as in the table."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: /etc/nllbd/nllbd.toml)")
    wanted = None if names is None else set(names)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for row in ROWS:
        if wanted is None or row.name in wanted:
            if row.group not in groups:
                groups[row.group] = parser.add_argument_group(row.group)
            _add_flag(groups[row.group], row)


def settings_from(args: argparse.Namespace) -> Settings:
    """The effective settings, flags included. Raises ConfigError."""
    flags = {
        name.removeprefix(_PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(_PREFIX) and value is not None
    }
    return load_settings(flags, config_file=getattr(args, "config", None))


def _add_flag(group: argparse._ArgumentGroup, row: Row) -> None:
    if not row.secret:  # a secret on the command line is there for every user of the machine to read
        group.add_argument(
            _spelled(row.name),
            dest=_PREFIX + row.name,
            metavar=row.kind.name.upper(),
            nargs="?" if row.kind.name == "flag" else None,
            const="true" if row.kind.name == "flag" else None,
            help=_help(row),
        )
    if row.has_file_form:
        group.add_argument(
            _spelled(f"{row.name}_file"),
            dest=f"{_PREFIX}{row.name}_file",
            metavar="FILE",
            help=f"file that holds {row.name}" + (f": {row.purpose}" if row.secret else ""),
        )


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(row: Row) -> str:
    plain = row.purpose.replace("`", "").replace("%", "%%")
    return f"{plain} (default: {row.described_default.replace('`', '')})"
