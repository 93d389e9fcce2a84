"""`nllbd ops backup`, `verify` and `restore`: the arguments, and what is printed."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nllbd.commands.output import flush_output, print_line
from nllbd.ops.backup import restore, run, verify
from nllbd.ops.backup.plan import DEFAULT_FILE, Plan, read_plan
from nllbd.ops.backup.restic import Restic


def add_actions(actions: Any) -> None:
    backup = actions.add_parser("backup", help="make an encrypted backup with restic, and let old ones go")
    backup.add_argument("--init", action="store_true", help="make the repository first: once, for the first host")
    backup.set_defaults(act=_backup)
    check = actions.add_parser("verify", help="restore the newest backup into a scratch folder and translate from it")
    check.add_argument("--run", default="", metavar="ID", help="another backup: its manifest's snapshot")
    check.set_defaults(act=_verify)
    back = actions.add_parser("restore", help="bring a host back from a backup")
    back.add_argument("--run", default="", metavar="ID", help="not the newest backup: its manifest's snapshot")
    back.add_argument("--host", metavar="NAME", help="whose backup (default: this host's, or as the plan says)")
    back.add_argument("--only", default=",".join(restore.KINDS), metavar="KINDS", help="default: %(default)s")
    back.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="restore below DIR, start nothing")
    back.add_argument("--replace", action="store_true", help="put the backup in place of what is there")
    back.add_argument("--redis-folder", type=Path, default=Path("/var/lib/redis"), metavar="DIR", help="of its dump")
    back.add_argument("--no-start", action="store_true", help="leave nllbd.service stopped")
    back.add_argument("--dry-run", action="store_true", help="say what would be restored")
    back.set_defaults(act=_restore)
    for action in (backup, check, back):
        action.add_argument("--plan", type=Path, default=DEFAULT_FILE, metavar="FILE", help="default: %(default)s")


def _say(line: str) -> None:
    print_line(line)
    flush_output()


def _backup(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    began = time.monotonic()
    if args.init:
        Restic(plan).init()
    manifest = run.back_up(plan, _say)
    _say(f"done  backup of {manifest.host} in {time.monotonic() - began:.1f} s")
    return 0


def _verify(args: argparse.Namespace) -> int:
    began = time.monotonic()
    manifest = verify.verify(read_plan(args.plan), _say, args.run)
    _say(f"done  the backup of {manifest.time} is good; verified in {time.monotonic() - began:.1f} s")
    return 0


def _restore(args: argparse.Namespace) -> int:
    plan: Plan = read_plan(args.plan)
    if args.host:
        plan = replace(plan, host=args.host)
    kinds = tuple(kind.strip() for kind in args.only.split(","))
    if unknown := set(kinds) - set(restore.KINDS):
        _say(f"--only: unknown: {', '.join(sorted(unknown))}; known: {', '.join(restore.KINDS)}")
        return 2
    wishes = restore.Wishes(
        kinds=kinds,
        root=args.root.absolute(),
        run=args.run,
        replace=args.replace,
        dry_run=args.dry_run,
        start=not args.no_start,
        redis_folder=args.redis_folder,
    )
    times = restore.restore(plan, wishes, _say)
    if times:
        shown = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in times.items())
        _say(f"done  restored in {sum(times.values()):.1f} s ({shown})")
    return 0
