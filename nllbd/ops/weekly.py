"""The weekly checks, in the order of the guide's list."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from nllbd.config.table import state_folder
from nllbd.ops import figures, keyaudit, prometheus
from nllbd.ops.checklist import Check, Item, Verdict
from nllbd.ops.context import Context
from nllbd.ops.retention import prune

OK, WARN, FAIL, TODO, SKIP = Verdict

_PACKAGES = "Update system packages"
_PERFORMANCE = "Review performance metrics"
_RECOVERY = "Test disaster recovery procedures"
_ACCESS = "Audit user access logs"
_STORAGE = "Check storage usage and cleanup"
_DOCUMENTS = "Review and update documentation"

_WEEK_S = 7 * 86400.0
_INSTALL = re.compile(r"^Inst (\S+) .*\((\S+) (.*)\)")
_P95 = "histogram_quantile(0.95, sum by (le) (rate(translation_duration_seconds_bucket[7d]{offset})))"
_RATE = "sum(rate(translation_requests_total[7d]{offset}))"


def check_packages(_context: Context) -> list[Item]:
    """What apt would install, security updates apart. The lists are as fresh as the last apt-get update."""
    apt = shutil.which("apt-get")
    if apt is None:
        return [Item("packages", _PACKAGES, SKIP, "no apt-get here", "update as this system does it")]
    command = [apt, "--simulate", "-o", "Debug::NoLocking=true", "dist-upgrade"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [Item("packages", _PACKAGES, FAIL, done.stderr.strip()[-200:], "apt-get --simulate dist-upgrade")]
    pending, security = pending_updates(done.stdout)
    items = [_packages_item(pending, security)]
    if Path("/run/reboot-required").exists():
        items.append(Item("reboot", _PACKAGES, WARN, "an update waits for a reboot", "drain this host, and reboot it"))
    return items


def pending_updates(output: str) -> tuple[list[str], list[str]]:
    """All packages that apt would install, and those of them that come from a security archive."""
    found = [match for match in map(_INSTALL.match, output.splitlines()) if match]
    return [match[1] for match in found], [match[1] for match in found if "security" in match[3].lower()]


def _packages_item(pending: list[str], security: list[str]) -> Item:
    lists = Path("/var/lib/apt/lists")
    is_fresh = lists.is_dir() and any(lists.glob("*_Packages*"))
    shown = f"{len(pending)} pending, {len(security)} of them security"
    if not is_fresh:
        return Item("packages", _PACKAGES, WARN, f"{shown}; apt has no package lists", "apt-get update")
    if security:
        shown += f": {', '.join(security[:5])}"
        return Item("packages", _PACKAGES, WARN, shown, "apt-get update && apt-get upgrade, one host after the other")
    return Item("packages", _PACKAGES, OK, shown)


def check_performance(context: Context) -> list[Item]:
    """This week against the last one: from Prometheus, else from what the daily runs remembered."""
    if context.ops.prometheus:
        ask: Callable[[str], float | None] = lambda query: prometheus.ask(context.ops.prometheus, query)  # noqa: E731
        p95 = [ask(_P95.replace("{offset}", offset)) for offset in ("", " offset 7d")]
        rate = [ask(_RATE.replace("{offset}", offset)) for offset in ("", " offset 7d")]
        return [_compared(context, p95[0], p95[1], rate[0], rate[1])]
    now = context.now.timestamp()
    looks = figures.history(context.state.figures)
    this, last = figures.spans(looks, now - _WEEK_S, now), figures.spans(looks, now - 2 * _WEEK_S, now - _WEEK_S)
    return [_compared(context, _typical(this), _typical(last), _per_second(this), _per_second(last))]


def _typical(spans: list[figures.Span]) -> float | None:
    values = [span.p95_s for span in spans if span.p95_s is not None]
    return statistics.median(values) if values else None


def _per_second(spans: list[figures.Span]) -> float | None:
    return statistics.fmean(span.per_minute for span in spans) / 60 if spans else None


def _compared(
    context: Context, p95: float | None, p95_before: float | None, rate: float | None, rate_before: float | None
) -> Item:
    if p95 is None:
        return Item("performance", _PERFORMANCE, SKIP, "no translations in a week that anybody measured", "run daily")
    shown = f"95 % within {p95:.2f} s" + (f", {rate:.2f} requests/s" if rate is not None else "")
    if p95_before is None:
        return Item("performance", _PERFORMANCE, OK, f"{shown}; no week before to compare with")
    change = 100.0 * (p95 / max(p95_before, 1e-9) - 1.0)
    shown += f"; the week before {p95_before:.2f} s" + (f", {rate_before:.2f}/s" if rate_before is not None else "")
    verdict = WARN if change > context.ops.slower_percent else OK
    return Item("performance", _PERFORMANCE, verdict, f"{shown} ({change:+.0f} %)", "nllbd top; nllbd ops capacity")


def check_recovery(context: Context) -> list[Item]:
    """A backup has been restored and translated from, not long ago."""
    verified = context.samples.get("nllbd_backup_last_verified_timestamp_seconds")
    if verified is None:
        advice = "run /usr/local/lib/nllbd/backup-verify"
        return [Item("restore test", _RECOVERY, FAIL, "no backup was ever restored and translated from", advice)]
    days = (context.now.timestamp() - verified) / 86400
    verdict = FAIL if days > context.ops.verified_age_days else OK
    shown = f"a backup was restored and translated from {days:.1f} days ago"
    return [Item("restore test", _RECOVERY, verdict, shown, "journalctl -u nllbd-backup-verify", {"days": days})]


def check_keys(context: Context) -> list[Item]:
    found = keyaudit.audit(context.stored.keys, context.stored.last_used, context.now)
    unused = [it for it in found if it.unused_days > context.ops.unused_days]
    endless = [it for it in found if it.is_endless]
    shown = (
        f"{len(found)} active, {len(endless)} without an end, {len(unused)} unused for {context.ops.unused_days} days"
    )
    if not unused:
        return [Item("keys", _ACCESS, OK, shown)]
    named = ", ".join(keyaudit.shown(it) for it in unused[:5])
    return [Item("keys", _ACCESS, WARN, f"{shown}: {named}", "nllbd keys revoke ID, after asking")]


def check_access(context: Context) -> list[Item]:
    """Who changed keys: a person has to know whether they were to."""
    events = context.ask_store(lambda reports: reports.audit_since(context.now - timedelta(days=7), limit=100_000))
    changes = [event for event in events if event.action.startswith("key.")]
    if not changes:
        return [Item("key changes", _ACCESS, OK, "none in 7 days")]
    shown = "; ".join(
        f"{event.at:%Y-%m-%d %H:%M} {event.actor} {event.action} {event.subject}" for event in changes[:8]
    )
    return [Item("key changes", _ACCESS, TODO, f"{len(changes)} in 7 days: {shown}", "were they meant?")]


def check_storage(context: Context) -> list[Item]:
    """What nllbd stores, and what of it went just now because it was older than the settings keep."""
    folder = state_folder()
    gone = prune(context.settings, context.now)
    counts = context.ask_store(lambda reports: reports.counts(context.now))
    stored = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "ended_sessions")
    cleaned = ", ".join(f"{count} {name}" for name, count in gone.items() if count) or "nothing"
    items = [Item("storage", _STORAGE, OK, f"{stored}; {cleaned} went")]
    kept = sorted(folder.glob("usage/*.kept")) if folder.is_dir() else []
    if kept:
        advice = "the database refused them: see the log, book them by hand, then delete them"
        items.append(Item("usage journal", _STORAGE, WARN, f"{len(kept)} segments lie aside in {folder}/usage", advice))
    return items


def check_documents(_context: Context) -> list[Item]:
    shown = "do docs/operations and the contact list say what was learned this week?"
    return [Item("documentation", _DOCUMENTS, TODO, shown)]


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("packages", _PACKAGES, check_packages),
    ("performance", _PERFORMANCE, check_performance),
    ("restore test", _RECOVERY, check_recovery),
    ("keys", _ACCESS, check_keys),
    ("key changes", _ACCESS, check_access),
    ("storage", _STORAGE, check_storage),
    ("documentation", _DOCUMENTS, check_documents),
)
