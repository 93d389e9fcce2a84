"""`nllbd ops daily`, `weekly`, `monthly`, `audit` and `prune`: the arguments, and what is printed."""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nllbd.commands.options import settings_from
from nllbd.commands.output import print_line, print_table
from nllbd.errors import InvalidValue, NllbdError
from nllbd.ops import asking, daily, monthly, weekly
from nllbd.ops.checklist import Checklist, Verdict, run_checks, sign, signed_checklists
from nllbd.ops.context import Context
from nllbd.ops.retention import prune
from nllbd.ops.settings import read_ops_settings
from nllbd.ops.textfile import Sample, write_samples

CHECK_KEY = "check_key"
_LISTS = {"daily": daily.CHECKS, "weekly": weekly.CHECKS, "monthly": monthly.CHECKS}
_PURPOSES = {
    "daily": "health, a translation, logs, alerts, backups, certificates, disk, memory, security",
    "weekly": "updates, performance, the restore test, keys, storage and its cleanup",
    "monthly": "rotation, thresholds, security, capacity, contacts",
}
_HELPS = {
    "nllbd_check_ok": "1 if the check did not fail when it was last run (nllbd ops).",
    "nllbd_check_last_success_timestamp_seconds": "When the check last did not fail.",
}


def add_actions(actions: Any) -> None:
    for kind, purpose in _PURPOSES.items():
        action = actions.add_parser(kind, help=purpose)
        action.add_argument("--json", action="store_true", help="for programs (default: Markdown)")
        action.add_argument("--sign", metavar="NAME", help="write it down in the state folder, with a digest")
        action.add_argument("--textfile", type=Path, metavar="FILE", help="write metrics for node_exporter")
        action.add_argument("--url", help="the daemon's API (default: as the settings say)")
        action.add_argument("--metrics-url", metavar="URL", help="its metrics (default: as the settings say)")
        action.set_defaults(act=_check, kind=kind)
    audit = actions.add_parser("audit", help="read the audit log")
    audit.add_argument("--since", default="7d", metavar="TIME", help="24h, 7d (default), or a date")
    audit.add_argument("--action", dest="event", default="", metavar="ACTION", help="such as key.revoked")
    audit.add_argument("--subject", default="", metavar="ID", help="of this key, session …")
    audit.add_argument("--json", action="store_true", help="a JSON object a line")
    audit.set_defaults(act=_audit)
    tidy = actions.add_parser("prune", help="delete what is older than the retention settings keep")
    tidy.set_defaults(act=_prune)
    signed = actions.add_parser("signed", help="the signed checklists, after checking their digests")
    signed.set_defaults(act=_signed)
    for action in actions.choices.values():
        if action.get_default("act") in (_check, _audit, _prune, _signed):
            action.add_argument("--config", type=Path, metavar="FILE", help="default: /etc/nllbd/nllbd.toml")
            action.add_argument("--ops-config", type=Path, metavar="FILE", help="default: /etc/nllbd/ops.toml")


def _context(args: argparse.Namespace) -> Context:
    settings, ops = settings_from(args), read_ops_settings(args.ops_config)
    key = _check_key(Path(ops.credentials)) or settings.api_key or ""
    api = asking.Server(getattr(args, "url", None) or asking.api_url(settings), key)
    metrics = asking.Server(getattr(args, "metrics_url", None) or asking.metrics_url(settings))
    return Context(settings, ops, api, metrics, datetime.now(UTC))


def _check_key(credentials: Path) -> str:
    for folder in (Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/nonexistent"), credentials):
        try:
            return (folder / CHECK_KEY).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, PermissionError):
            continue
    return ""


def _check(args: argparse.Namespace) -> int:
    context = _context(args)
    checklist = run_checks(args.kind, os.uname().nodename, _LISTS[args.kind], context)
    if args.sign:
        checklist, path = _signed_by(checklist, args.sign, context.state.signed)
    print_line(checklist.to_json() if args.json else checklist.to_markdown())
    if args.sign and not args.json:
        print_line(f"Written to {path}")
    if args.textfile:
        _write_metrics(args.textfile, checklist)
    return 1 if checklist.failed else 0


def _signed_by(checklist: Checklist, name: str, folder: Path) -> tuple[Checklist, Path]:
    if not name.strip() or not name.isprintable():
        raise InvalidValue("--sign: give the name of the person who signs", field="sign")
    try:
        return sign(checklist, name.strip(), folder)
    except OSError as error:
        raise NllbdError(f"{error.filename}: {error.strerror}") from None


def _write_metrics(file: Path, checklist: Checklist) -> None:
    """A check with several items has failed when one of them has. What is not set up, or a person's, has no figure."""
    verdicts: dict[str, bool] = {}
    for item in checklist.items:
        if item.verdict not in (Verdict.TODO, Verdict.SKIP):
            verdicts[item.check] = verdicts.get(item.check, True) and item.verdict is not Verdict.FAIL
    samples = [Sample("nllbd_check_ok", float(ok), {"check": _label(name)}) for name, ok in verdicts.items()]
    samples += [
        Sample("nllbd_check_last_success_timestamp_seconds", round(time.time()), {"check": _label(name)})
        for name, ok in {**verdicts, checklist.kind: not checklist.failed}.items()
        if ok
    ]
    samples.append(Sample("nllbd_check_ok", float(not checklist.failed), {"check": checklist.kind}))
    try:
        write_samples(file, samples, _HELPS, keep=".")
    except OSError as error:
        raise NllbdError(f"{error.filename}: {error.strerror}") from None


def _label(name: str) -> str:
    return name.replace(" ", "_").replace("'", "")


def _audit(args: argparse.Namespace) -> int:
    context = _context(args)
    since = _moment(args.since, context.now)
    events = context.ask_store(
        lambda reports: reports.audit_since(since, action=args.event, subject=args.subject, limit=10_000)
    )
    if args.json:
        for event in reversed(events):
            row = {"at": event.at.isoformat(), "actor": event.actor, "action": event.action, "subject": event.subject}
            print_line(json.dumps(row | {"details": dict(event.details)}, ensure_ascii=False))
        return 0
    rows = [
        (event.at.strftime("%Y-%m-%d %H:%M:%S"), event.actor, event.action, event.subject, _details(event.details))
        for event in reversed(events)
    ]
    print_table(("AT (UTC)", "ACTOR", "ACTION", "SUBJECT", "DETAILS"), rows)
    return 0


def _details(details: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in details.items())


def _moment(text: str, now: datetime) -> datetime:
    units = {"h": 3600, "d": 86400, "w": 7 * 86400}
    if text[-1:] in units and text[:-1].isdigit() and len(text) < 6:
        return now - timedelta(seconds=int(text[:-1]) * units[text[-1]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(f"--since {text!r}: give 24h, 7d, 2w or a date such as 2027-01-31", field="since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _prune(args: argparse.Namespace) -> int:
    gone = prune(settings_from(args), datetime.now(UTC))
    print_line(", ".join(f"{count} {name}" for name, count in gone.items()) + " went")
    return 0


def _signed(args: argparse.Namespace) -> int:
    rows = [
        (table["at"], table["kind"], table["signed_by"], "failed" if table["failed"] else "ok", table["digest"][:16])
        for table in signed_checklists(_context(args).state.signed)
    ]
    print_table(("AT", "KIND", "SIGNED BY", "RESULT", "DIGEST"), rows)
    return 0
