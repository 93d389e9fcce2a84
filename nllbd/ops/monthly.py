"""The monthly checks, in the order of the guide's list."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from nllbd.config.table import ROWS
from nllbd.ops import certificates, exposure, figures, keyaudit, prometheus
from nllbd.ops.checklist import Check, Item, Verdict
from nllbd.ops.context import Context

OK, WARN, FAIL, TODO, SKIP = Verdict

_ROTATE = "Rotate API keys and certificates"
_THRESHOLDS = "Review and update monitoring thresholds"
_SECURITY = "Conduct security assessment"
_RUNBOOKS = "Update disaster recovery runbooks"
_CAPACITY = "Review capacity planning"
_CONTACTS = "Update emergency contact lists"

_MONTH_S = 30 * 86400.0
_ROTATION = "docs/operations/rotation.md says how"
#: What the thresholds are held against: the worst of the last 30 days, by what it is called here.
_WORST = {
    "95 % of translations within, s": (
        "max_over_time(histogram_quantile(0.95, sum by (le) (rate(translation_duration_seconds_bucket[5m])))[30d:5m])"
    ),
    "errors, share": (
        "max_over_time((sum(rate(nllbd_errors_total[5m])) / sum(rate(nllbd_http_requests_total[5m])))[30d:5m])"
    ),
    "queue, segments": "max_over_time(sum(nllbd_num_sequences_waiting)[30d:1m])",
    "memory of a daemon, MiB": 'max_over_time(max(process_resident_memory_bytes{job="nllbd"})[30d:5m]) / 1048576',
}


def check_key_ages(context: Context) -> list[Item]:
    found = keyaudit.audit(context.stored.keys, context.stored.last_used, context.now)
    old = [it for it in found if it.age_days > context.ops.key_age_days]
    shown = f"{len(old)} of {len(found)} active keys are older than {context.ops.key_age_days} days"
    if not old:
        return [Item("keys", _ROTATE, OK, shown)]
    named = ", ".join(keyaudit.shown(it) for it in old[:5])
    return [Item("keys", _ROTATE, WARN, f"{shown}: {named}", f"nllbd keys rotate ID; {_ROTATION}")]


def check_secret_ages(context: Context) -> list[Item]:
    """By the age of the files that hold them."""
    folder = Path(context.ops.credentials)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        return [Item("secrets", _ROTATE, SKIP, f"no {folder}")]
    limit = context.now.timestamp() - context.ops.secret_age_days * 86400.0
    old = [path.name for path in files if path.stat().st_mtime < limit]
    shown = f"{len(old)} of {len(files)} are older than {context.ops.secret_age_days} days"
    if old:
        return [Item("secrets", _ROTATE, WARN, f"{shown}: {', '.join(old)}", _ROTATION)]
    return [Item("secrets", _ROTATE, OK, shown)]


def check_certificates(context: Context) -> list[Item]:
    found = certificates.find(context.ops.certificates)
    due = [it for it in found if it.days_left(context.now) < 31]
    shown = f"{len(due)} of {len(found)} end before the next monthly run"
    if due:
        named = ", ".join(f"{it.path} ({it.days_left(context.now):.0f} days)" for it in due)
        return [Item("certificates", _ROTATE, WARN, f"{shown}: {named}", f"certbot renew; {_ROTATION}")]
    return [Item("certificates", _ROTATE, OK if found else SKIP, shown)]


def check_thresholds(context: Context) -> list[Item]:
    """The figures that a person needs to judge them: the month's worst beside every alert's condition."""
    if not context.ops.prometheus:
        spans = figures.spans(
            figures.history(context.state.figures), context.now.timestamp() - _MONTH_S, context.now.timestamp()
        )
        worst = max((span.p95_s for span in spans if span.p95_s is not None), default=None)
        errors = max((span.error_ratio for span in spans), default=0.0)
        shown = (
            f"{len(spans)} days: the slowest day's 95 % within {worst or 0:.2f} s, most errors {errors:.2%} of a day"
        )
        return [Item("thresholds", _THRESHOLDS, TODO, shown, "compare with deploy/monitoring's rules")]
    ask: Callable[[str], float | None] = lambda query: prometheus.ask(context.ops.prometheus, query)  # noqa: E731
    worst_of = {name: ask(query) for name, query in _WORST.items()}
    shown = ", ".join(f"{name}: {value:.3g}" for name, value in worst_of.items() if value is not None)
    rules = prometheus.rules(context.ops.prometheus)
    conditions = "; ".join(f"{rule['name']}: {' '.join(rule['query'].split())}" for rule in rules)
    return [
        Item("worst of 30 days", _THRESHOLDS, TODO, shown or "nothing was measured", "is every threshold beyond it?"),
        Item("conditions", _THRESHOLDS, TODO, f"{len(rules)} alerts: {conditions}"),
    ]


def check_sandbox(context: Context) -> list[Item]:
    score = exposure.unit_exposure("nllbd.service")
    if score is None:
        return [Item("sandbox", _SECURITY, SKIP, "systemd does not run here, or has no nllbd.service")]
    verdict = FAIL if score > context.ops.exposure else OK
    shown = f"systemd-analyze security: {score:.1f} (at most {context.ops.exposure:.1f})"
    return [Item("sandbox", _SECURITY, verdict, shown, "see which drop-in loosened it: systemctl cat nllbd.service")]


def check_sockets(context: Context) -> list[Item]:
    allowed = (*context.ops.public_ports,) + (
        (context.settings.port,) if not context.settings.listens_on_loopback else ()
    )
    found = exposure.open_ports(allowed)
    if found:
        shown = f"ports {', '.join(map(str, found))} listen beyond the loopback"
        return [
            Item("sockets", _SECURITY, WARN, shown, "ss -ltnp; close them, or list them in public_ports of ops.toml")
        ]
    return [Item("sockets", _SECURITY, OK, f"nothing beyond {', '.join(map(str, allowed))}")]


def check_modes(context: Context) -> list[Item]:
    loose = exposure.loose_files(Path(context.ops.credentials))
    if loose:
        return [Item("secrets' modes", _SECURITY, FAIL, "; ".join(loose), f"chmod -R go= {context.ops.credentials}")]
    return [Item("secrets' modes", _SECURITY, OK, "only their owner reads them")]


def check_settings(context: Context) -> list[Item]:
    """Settings that are fine on one machine and not before the world."""
    settings = context.settings
    wrong = []
    if settings.allow_anonymous:
        wrong.append("allow_anonymous: everybody who reaches it may translate")
    if not settings.listens_on_loopback:
        wrong += [f"{name} is on" for name in ("enable_swagger", "enable_web") if getattr(settings, name)]
        wrong += ["rate_limit_per_minute is 0"] if not settings.rate_limit_per_minute else []
    in_clear = [row.name for row in ROWS if row.secret and settings.origin(row.name).startswith("environment")]
    wrong += [f"{name} is in the environment: give it as a file" for name in in_clear]
    if wrong:
        return [Item("settings", _SECURITY, WARN, "; ".join(wrong), "nllbd config show")]
    return [Item("settings", _SECURITY, OK, "nothing that is for one's own machine only")]


def check_tls(context: Context) -> list[Item]:
    if not context.ops.tls:
        return [Item("tls", _SECURITY, SKIP, "no addresses in ops.toml", 'tls = ["translate.example:443"]')]
    old = [address for address in context.ops.tls if exposure.accepts_old_tls(address)]
    if old:
        return [
            Item("tls", _SECURITY, FAIL, f"{', '.join(old)} speaks TLS 1.1 or older", "ssl_protocols TLSv1.2 TLSv1.3")
        ]
    return [Item("tls", _SECURITY, OK, f"{', '.join(context.ops.tls)}: nothing older than TLS 1.2")]


def check_review(_context: Context) -> list[Item]:
    return [Item("review", _SECURITY, TODO, "go through docs/operations/security-review.md")]


def check_runbooks(_context: Context) -> list[Item]:
    shown = "read docs/operations/disaster-recovery.md as the one who is called at night; is it still so?"
    return [Item("runbook", _RUNBOOKS, TODO, shown)]


def check_capacity(context: Context) -> list[Item]:
    """The month's busiest time against what this host was measured to take."""
    try:
        measured = json.loads(context.state.capacity.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [
            Item("capacity", _CAPACITY, TODO, "this host was never measured", "nllbd ops capacity, in a quiet hour")
        ]
    limit = measured["requests_per_minute"]
    age = (time.time() - measured["at"]) / 86400
    now = context.now.timestamp()
    spans = figures.spans(figures.history(context.state.figures), now - _MONTH_S, now)
    busiest = max((span.per_minute for span in spans), default=0.0)
    if context.ops.prometheus:
        query = "max_over_time(sum(rate(translation_requests_total[5m]))[30d:5m])"
        busiest = 60.0 * (prometheus.ask(context.ops.prometheus, query) or 0.0)
    share = 100.0 * busiest / max(limit, 1e-9)
    shown = f"busiest {busiest:.1f} requests a minute, {share:.0f} % of the {limit:.0f} measured {age:.0f} days ago"
    verdict = WARN if share > context.ops.utilisation_percent else OK
    return [Item("capacity", _CAPACITY, verdict, shown, "add a host; docs/operations/capacity.md", {"percent": share})]


def check_contacts(context: Context) -> list[Item]:
    path = Path(context.ops.contacts)
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return [
            Item("contacts", _CONTACTS, FAIL, f"{path} is missing or empty", "who is called, in which order, and how")
        ]
    days = (time.time() - path.stat().st_mtime) / 86400
    verdict = WARN if days > context.ops.contacts_age_days else OK
    return [
        Item("contacts", _CONTACTS, verdict, f"{path}, changed {days:.0f} days ago", "call the first one, and touch it")
    ]


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("keys", _ROTATE, check_key_ages),
    ("secrets", _ROTATE, check_secret_ages),
    ("certificates", _ROTATE, check_certificates),
    ("thresholds", _THRESHOLDS, check_thresholds),
    ("sandbox", _SECURITY, check_sandbox),
    ("sockets", _SECURITY, check_sockets),
    ("secrets' modes", _SECURITY, check_modes),
    ("settings", _SECURITY, check_settings),
    ("tls", _SECURITY, check_tls),
    ("review", _SECURITY, check_review),
    ("runbook", _RUNBOOKS, check_runbooks),
    ("capacity", _CAPACITY, check_capacity),
    ("contacts", _CONTACTS, check_contacts),
)
