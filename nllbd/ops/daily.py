"""The daily checks, in the order of the guide's list."""

from __future__ import annotations

import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import psutil

from nllbd.ops import asking, certificates, figures, logs, prometheus
from nllbd.ops.checklist import Check, Item, Verdict
from nllbd.ops.context import Context
from nllbd.store.records import AuditEvent

OK, WARN, FAIL, TODO, SKIP = Verdict

_HEALTH = "Check system health dashboards"
_LOGS = "Review error logs and alerts"
_BACKUP = "Verify backup completion"
_RESOURCES = "Monitor resource usage trends"
_CERTIFICATES = "Check SSL certificate expiration"
_SECURITY = "Review security logs"


def check_health(context: Context) -> list[Item]:
    """The daemon says that it is well, and takes requests."""
    health = context.api.get("/health")
    body = health.json()
    ready = context.api.get("/readyz")
    seen = f"{body['status']}, engine {body['engine']}, model {body['model']}, {body['version']}"
    if health.status != 200 or ready.status != 200:
        return [Item("health", _HEALTH, FAIL, f"{seen}: {body.get('message')}", "journalctl -u nllbd")]
    return [Item("health", _HEALTH, OK, seen, figures={"uptime_s": body["uptime_s"]})]


def check_translation(context: Context) -> list[Item]:
    smoke = asking.smoke_translation(context.api)
    return [Item("translation", _HEALTH, OK, f"{smoke.text!r} became {smoke.translation!r}")]


def check_figures(context: Context) -> list[Item]:
    """Restarts of the engine and memory against the last look; this look is remembered."""
    now = figures.look(context.metrics)
    before = figures.history(context.state.figures)
    figures.remember(context.state.figures, now)
    last = before[-1] if before else None
    restarts = now.restarts - (last.restarts if last and last.started == now.started else 0.0)
    verdict = WARN if restarts else OK
    items = [
        Item("engine", _HEALTH, verdict, f"{restarts:.0f} restarts since the last look", "journalctl -u nllbd"),
        _memory_trend(context, now, before),
    ]
    if last is not None:
        span = figures.between(last, now)
        p95 = "none" if span.p95_s is None else f"{span.p95_s:.2f} s"
        shown = f"{span.translations:.0f} translations, {span.error_ratio:.2%} errors, 95 % within {p95}"
        items.append(Item("traffic", _RESOURCES, OK, shown))
    return items


def _memory_trend(context: Context, now: figures.Figures, before: Sequence[figures.Figures]) -> Item:
    """Against what the same process took in its first day: a leak grows, a model does not."""
    same = [it for it in before if it.started == now.started]
    shown = f"daemon {now.memory_bytes / 2**20:.0f} MiB"
    if not same:
        return Item("memory trend", _RESOURCES, OK, f"{shown}; nothing to compare with yet")
    grown = 100.0 * (now.memory_bytes / max(same[0].memory_bytes, 1.0) - 1.0)
    days = (now.at - same[0].at) / 86400
    shown += f", {grown:+.0f} % in {days:.1f} days"
    verdict = WARN if grown > context.ops.memory_growth_percent else OK
    return Item("memory trend", _RESOURCES, verdict, shown, "restart it in a quiet hour, and report it")


def check_logs(context: Context) -> list[Item]:
    found = logs.review(context.ops.units)
    if found is None:
        return [Item("errors", _LOGS, SKIP, "there is no journal to read", "look where the logs are sent")]
    shown = f"{found.num_errors} errors and {found.warnings} warnings in 24 h"
    if not found.errors:
        return [Item("errors", _LOGS, OK, shown)]
    worst = "; ".join(f"{count} × {message}" for message, count in found.errors[:3])
    return [
        Item("errors", _LOGS, WARN, f"{shown}: {worst}", f"journalctl -u '{context.ops.units}' -p err --since -24h")
    ]


def check_alerts(context: Context) -> list[Item]:
    ops = context.ops
    if not ops.prometheus and not ops.alertmanager:
        return [Item("alerts", _LOGS, SKIP, "neither alertmanager nor prometheus is set in ops.toml")]
    firing = prometheus.firing_alerts(ops.prometheus, ops.alertmanager)
    if firing:
        return [Item("alerts", _LOGS, FAIL, ", ".join(firing), "docs/operations/runbooks has a section for each")]
    return [Item("alerts", _LOGS, OK, "none is firing")]


def check_backup(context: Context) -> list[Item]:
    """Every kind of the last backup is young enough."""
    prefix = "nllbd_backup_last_success_timestamp_seconds"
    times = {name: value for name, value in context.samples.items() if name.startswith(prefix)}
    # pgBackRest has a rhythm of its own, and goes on elsewhere after a failover: its alert looks at all hosts
    times = {name: value for name, value in times.items() if 'kind="pgbackrest-' not in name}
    if not times:
        advice = "set up deploy/backup, or set textfiles in ops.toml"
        return [Item("backup", _BACKUP, FAIL, f"no backup has left a figure in {context.ops.textfiles}", advice)]
    name, oldest = min(times.items(), key=lambda item: item[1])
    age_h = (context.now.timestamp() - oldest) / 3600
    kind = name.partition('"')[2].partition('"')[0]
    shown = f"{len(times)} kinds; the oldest, {kind}, is {age_h:.1f} h old"
    verdict = FAIL if age_h > context.ops.backup_age_hours else OK
    return [Item("backup", _BACKUP, verdict, shown, "journalctl -u nllbd-backup", {"age_hours": age_h})]


def check_disk(context: Context) -> list[Item]:
    """Every file system that nllbd writes to."""
    folders = {"/": Path("/"), "state": context.state.folder.parent, "logs": Path("/var/log")}
    if context.settings.model_dir is not None:
        folders["models"] = context.settings.model_dir
    devices: dict[int, tuple[str, float]] = {}
    for name, folder in folders.items():
        there = next(it for it in (folder.absolute(), *folder.absolute().parents) if it.exists())
        use = shutil.disk_usage(there)
        devices.setdefault(os.stat(there).st_dev, (name, 100.0 * (use.total - use.free) / max(use.total, 1)))
    shown = ", ".join(f"{name} {percent:.0f} %" for name, percent in devices.values())
    worst = max(percent for _, percent in devices.values())
    verdict = FAIL if worst > 95 else WARN if worst > context.ops.disk_percent else OK
    return [Item("disk", _RESOURCES, verdict, shown, "nllbd ops weekly cleans up; see what is largest with du -x")]


def check_memory(context: Context) -> list[Item]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load = os.getloadavg()[2] / (os.cpu_count() or 1)
    shown = f"memory {memory.percent:.0f} %, swap {swap.percent:.0f} %, load {load:.1f} per core in 15 min"
    verdict = WARN if memory.percent > context.ops.memory_percent else OK
    return [Item("memory", _RESOURCES, verdict, shown, "a smaller kv_cache_bytes, or more memory")]


def check_certificates(context: Context) -> list[Item]:
    found = certificates.find(context.ops.certificates)
    if not found:
        shown = f"none at {', '.join(context.ops.certificates)}"
        return [Item("certificates", _CERTIFICATES, SKIP, shown, "set certificates in ops.toml if there are some")]
    first = found[0]
    days = first.days_left(context.now)
    shown = f"{len(found)}; the first to end, {first.path}, in {days:.0f} days"
    verdict = FAIL if days < 7 else WARN if days < context.ops.certificate_days else OK
    return [Item("certificates", _CERTIFICATES, verdict, shown, "certbot renew", {"days_left": days})]


def check_failed_authentications(context: Context) -> list[Item]:
    by_address = failures_by_address(context.stored.failed)
    total = sum(by_address.values())
    worst = sorted(by_address.items(), key=lambda item: -item[1])[:3]
    shown = f"{total} in 24 h from {len(by_address)} addresses"
    shown += f"; most: {', '.join(f'{address} {count}' for address, count in worst)}" if worst else ""
    verdict = WARN if total > context.ops.failed_authentications else OK
    advice = "somebody guesses, or a client has an old key: nllbd ops audit --action authentication.failed"
    return [Item("failed authentications", _SECURITY, verdict, shown, advice, {"total": total})]


def failures_by_address(events: Sequence[AuditEvent]) -> dict[str, int]:
    """The log has the first of a minute by itself, the others as one event with their number."""
    found: dict[str, int] = defaultdict(int)
    for event in events:
        found[event.actor] += int(event.details.get("more", "1"))
    return dict(found)


def check_usage(context: Context) -> list[Item]:
    """Accounts that used many times their usual yesterday or today: a key in wrong hands, or a loop."""
    today = context.now.date()
    daily: dict[str, dict[int, int]] = defaultdict(dict)
    for entry in context.stored.usage:
        daily[entry.account][(today - entry.day).days] = entry.characters
    unusual = []
    for account, by_age in daily.items():
        recent = max(by_age.get(0, 0), by_age.get(1, 0))
        usual = statistics.median([by_age.get(age, 0) for age in range(2, 16)])
        if recent > context.ops.usage_least_characters and recent > context.ops.usage_factor * usual:
            unusual.append(f"{account} {recent} characters, usually {usual:.0f}")
    if unusual:
        shown, advice = "; ".join(sorted(unusual)), "ask its owner; nllbd keys revoke ID ends it within 5 s"
        return [Item("usage", _SECURITY, WARN, shown, advice)]
    return [Item("usage", _SECURITY, OK, f"{len(daily)} accounts, none far from its usual")]


def check_audit_written(context: Context) -> list[Item]:
    """That the log has nothing new may be the trouble: a running daemon has written its start."""
    events = context.ask_store(lambda reports: reports.audit_since(context.now - timedelta(days=1), limit=1000))
    by_action: dict[str, int] = defaultdict(int)
    for event in events:
        by_action[event.action] += 1
    shown = ", ".join(f"{count} {action}" for action, count in sorted(by_action.items())) or "nothing"
    return [Item("audit log", _SECURITY, OK, f"in 24 h: {shown}")]


def check_by_person(_context: Context) -> list[Item]:
    return [Item("dashboards", _HEALTH, TODO, "look at Grafana's overview for what no threshold names")]


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("health", _HEALTH, check_health),
    ("translation", _HEALTH, check_translation),
    ("engine", _HEALTH, check_figures),
    ("dashboards", _HEALTH, check_by_person),
    ("errors", _LOGS, check_logs),
    ("alerts", _LOGS, check_alerts),
    ("backup", _BACKUP, check_backup),
    ("disk", _RESOURCES, check_disk),
    ("memory", _RESOURCES, check_memory),
    ("certificates", _CERTIFICATES, check_certificates),
    ("failed authentications", _SECURITY, check_failed_authentications),
    ("usage", _SECURITY, check_usage),
    ("audit log", _SECURITY, check_audit_written),
)
