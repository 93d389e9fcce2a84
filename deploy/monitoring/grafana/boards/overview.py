"""Overview: are users served as promised, by whom, and what is wrong. The guide's three panels are in it."""

from __future__ import annotations

from .panels import Json, Panel, Query, Row, dashboard, host_variable

_TRAFFIC = 'route!~"/livez|/readyz|/health|/metrics",host=~"$host"'
_BUDGET = ((None, "red"), (0.1, "orange"), (0.5, "green"))
_BURN = ((None, "green"), (1, "orange"), (6, "red"))


def build() -> Json:
    rows = (_promises(), _traffic(), _latency(), _refusals(), _stores(), _fleet())
    about = "What users get: promises, traffic, latency, refusals; what stands behind the daemons; what runs where."
    return dashboard("nllbd-overview", "nllbd: overview", about, rows, [host_variable("nllbd_info")])


def _promises() -> Row:
    up = 'count(up{job="nllbd"} == 1) or vector(0)'
    return Row(
        "Promises",
        (
            Panel(
                "Daemons up",
                [Query(up)],
                kind="stat",
                width=4,
                height=4,
                steps=((None, "red"), (1, "orange"), (2, "green")),
                about="Below two there is no room for a failure. Runbook: daemon.md#nllbserverdown",
            ),
            Panel(
                "Availability budget left, 30 days",
                [Query("nllbd:availability:budget_left30d")],
                kind="stat",
                unit="percentunit",
                width=5,
                height=4,
                steps=_BUDGET,
                minimum=None,
                about="99.9 % of the answers are no 5xx. Runbook: slo.md#errorbudgetspent",
            ),
            Panel(
                "Latency budget left, 30 days",
                [Query("nllbd:latency:budget_left30d")],
                kind="stat",
                unit="percentunit",
                width=5,
                height=4,
                steps=_BUDGET,
                minimum=None,
                about="99 % of the translations take at most 5 s. Runbook: slo.md#errorbudgetspent",
            ),
            Panel(
                "Alerts firing",
                [Query('count(ALERTS{alertstate="firing",alertname!="Watchdog"}) or vector(0)')],
                kind="stat",
                width=4,
                height=4,
                steps=((None, "green"), (1, "orange"), (5, "red")),
            ),
            Panel(
                "Seen from outside",
                [Query('probe_success{job="blackbox"}', "{{instance}}")],
                kind="stat",
                width=6,
                height=4,
                steps=((None, "red"), (1, "green")),
            ),
            Panel(
                "Burn of the availability budget",
                [Query("nllbd:availability:burn1h", "1 h"), Query("nllbd:availability:burn6h", "6 h")],
                width=12,
                steps=_BURN,
                about="1 uses it up in exactly 30 days; 14.4 for an hour or 6 for six hours calls somebody.",
            ),
            Panel(
                "Burn of the latency budget",
                [Query("nllbd:latency:burn1h", "1 h"), Query("nllbd:latency:burn6h", "6 h")],
                width=12,
                steps=_BURN,
            ),
        ),
    )


def _traffic() -> Row:
    requests = f"sum by (status) (rate(nllbd_http_requests_total{{{_TRAFFIC}}}[5m]))"
    return Row(
        "Traffic",
        (
            Panel(
                "Translation requests/sec",
                [Query('sum by (host) (rate(translation_requests_total{host=~"$host"}[5m]))', "{{host}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel("Answers by status", [Query(requests, "{{status}}")], unit="reqps", stacked=True),
            Panel(
                "Characters/sec",
                [Query('sum by (host) (rate(nllbd_characters_total{host=~"$host"}[5m]))', "{{host}}")],
                stacked=True,
            ),
            Panel(
                "Answers by route",
                [Query(f"sum by (route) (rate(nllbd_http_requests_total{{{_TRAFFIC}}}[5m]))", "{{route}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Requests in flight",
                [Query('sum by (host) (nllbd_requests_in_flight{host=~"$host"})', "{{host}}")],
                stacked=True,
            ),
            Panel(
                "Segments by how they were served",
                [Query('sum by (result) (rate(nllbd_segments_total{host=~"$host"}[5m]))', "{{result}}")],
                stacked=True,
                about="Cached, repeated and passed-through ones cost the engine nothing.",
            ),
        ),
    )


def _latency() -> Row:
    buckets = 'sum by (le) (increase(translation_duration_seconds_bucket{host=~"$host"}[$__rate_interval]))'
    return Row(
        "Latency",
        (
            Panel(
                "Translation latency",
                [
                    Query("nllbd:translation_duration:p50_5m", "50th percentile"),
                    Query("nllbd:translation_duration:p95_5m", "95th percentile"),
                    Query("nllbd:translation_duration:p99_5m", "99th percentile"),
                ],
                unit="s",
                steps=((None, "green"), (5, "red")),
            ),
            Panel("Durations", [Query(buckets, "{{le}}")], kind="heatmap", unit="s"),
            Panel(
                "95th percentile by host",
                [Query('host:translation_duration:p95_5m{host=~"$host"}', "{{host}}")],
                unit="s",
                steps=((None, "green"), (5, "red")),
                about="One line above the others: that host. Runbook: daemon.md#hightranslationlatency",
            ),
        ),
    )


def _refusals() -> Row:
    return Row(
        "Refusals and errors",
        (
            Panel(
                "Refused before any work",
                [Query('sum by (reason) (rate(nllbd_rejected_total{host=~"$host"}[5m]))', "{{reason}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Errors by code",
                [Query('sum by (code) (rate(nllbd_errors_total{host=~"$host"}[5m]))', "{{code}}")],
                unit="reqps",
                about="`internal` is ours: each has a line in the log and an event in Sentry.",
            ),
            Panel(
                "Bad credentials/sec, clients gone/sec",
                [
                    Query('sum(rate(nllbd_authentication_failures_total{host=~"$host"}[5m]))', "bad credentials"),
                    Query('sum(rate(nllbd_cancelled_total{host=~"$host"}[5m]))', "client gone"),
                ],
                unit="reqps",
            ),
        ),
    )


def _stores() -> Row:
    redis_time = 'sum by (le, link) (rate(nllbd_redis_duration_seconds_bucket{host=~"$host"}[5m]))'
    return Row(
        "Cache, Redis, database",
        (
            Panel(
                "Segments found in the cache",
                [Query("nllbd:cache_hits:ratio5m", "all hosts")],
                unit="percentunit",
                maximum=1,
                width=6,
            ),
            Panel(
                "Redis round trip, p95",
                [Query(f"histogram_quantile(0.95, {redis_time})", "{{link}}")],
                unit="s",
                width=6,
            ),
            Panel(
                "Redis and database in use",
                [
                    Query('min by (link) (nllbd_redis_up{host=~"$host"})', "Redis: {{link}}"),
                    Query('min(nllbd_store_up{host=~"$host"})', "database"),
                ],
                width=6,
                maximum=1,
                about="0 while any daemon does without.",
            ),
            Panel(
                "Usage that waits for the database",
                [Query('nllbd_usage_waiting_batches{host=~"$host"}', "{{host}}")],
                width=6,
                about="Runbook: daemon.md#usagejournalgrows",
            ),
        ),
    )


def _fleet() -> Row:
    info = "nllbd_info * on (instance) group_left (settings) label_replace(nllbd_config_info, "
    info += '"settings", "$1", "fingerprint", "(.*)")'
    return Row(
        "What runs where",
        (
            Panel(
                "Versions, models, settings",
                [Query(info, as_table=True)],
                kind="table",
                width=24,
                about="`settings` is a fingerprint: equal where daemons are set alike.",
            ),
        ),
    )
