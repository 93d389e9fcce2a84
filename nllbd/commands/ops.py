"""Operate nllbd: checklists that run what can be run, backups and their recovery, capacity, audit log, retention.

  nllbd ops daily                  health, a translation, logs, alerts, backups, certificates, disk, memory, security
  nllbd ops weekly --sign "Ada"    … and write it down, dated, with a digest
  nllbd ops capacity               how many users this host serves
  nllbd ops backup; nllbd ops verify; nllbd ops restore

Exit code 1: a check failed, or the action did.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from nllbd.commands import ops_backup, ops_capacity, ops_checks
from nllbd.ops import layout

_GROUPS = (ops_checks, ops_capacity, ops_backup)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for group in _GROUPS:
        group.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    layout.adopt(os.environ)
    act: Callable[[argparse.Namespace], int] = args.act
    return act(args)
