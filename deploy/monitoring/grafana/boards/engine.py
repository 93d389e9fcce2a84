"""Engine: where the time of a translation goes, how full the batch and its memory are."""

from __future__ import annotations

from .panels import Json, Panel, Query, Row, dashboard, host_variable

_HOST = 'host=~"$host"'
_FULL = ((None, "green"), (0.8, "orange"), (0.95, "red"))


def build() -> Json:
    rows = (_load(), _times(), _work(), _health())
    about = "The continuously refilled batch: queue, lanes, KV memory, tokens, steps, restarts, guards."
    return dashboard("nllbd-engine", "nllbd: engine", about, rows, [host_variable("nllbd_info")])


def _quantile(metric: str, share: str) -> str:
    return f"histogram_quantile({share}, sum by (host, le) (rate({metric}_bucket{{{_HOST}}}[5m])))"


def _load() -> Row:
    return Row(
        "How full",
        (
            Panel(
                "Sequences running and waiting",
                [
                    Query(f"sum by (host) (nllbd_num_sequences_running{{{_HOST}}})", "{{host}} running"),
                    Query(f"sum by (host) (nllbd_num_sequences_waiting{{{_HOST}}})", "{{host}} waiting"),
                ],
                width=6,
            ),
            Panel(
                "Lanes in use",
                [Query(f"nllbd_batch_lanes{{{_HOST}}} / (nllbd_max_num_lanes{{{_HOST}}} > 0)", "{{instance}}")],
                unit="percentunit",
                maximum=1,
                width=6,
                about="Of what a step can decode. Full lanes with a queue: the engine works at its best.",
            ),
            Panel(
                "KV cache in use",
                [Query(f"nllbd_kv_cache_usage_ratio{{{_HOST}}}", "{{instance}}")],
                unit="percentunit",
                maximum=1,
                steps=_FULL,
                width=6,
                about="Runbook: daemon.md#kvcachefull",
            ),
            Panel(
                "Queue in use",
                [
                    Query(f"nllbd_waiting_tokens{{{_HOST}}} / nllbd_max_waiting_tokens{{{_HOST}}}", "{{instance}}"),
                ],
                unit="percentunit",
                steps=_FULL,
                width=6,
                about="Of the tokens that may wait. Runbook: daemon.md#queuesaturated",
            ),
            Panel(
                "Tokens of accepted requests",
                [Query(f"nllbd_admitted_tokens{{{_HOST}}}", "{{instance}}")],
                width=12,
            ),
            Panel(
                "Segments a request (median, 95th)",
                [
                    Query(
                        f"histogram_quantile(0.5, sum by (le) (rate(nllbd_request_segments_bucket{{{_HOST}}}[5m])))",
                        "50th",
                    ),
                    Query(
                        f"histogram_quantile(0.95, sum by (le) (rate(nllbd_request_segments_bucket{{{_HOST}}}[5m])))",
                        "95th",
                    ),
                ],
                width=12,
            ),
        ),
    )


def _times() -> Row:
    parts = [
        ("Queue", "nllbd_queue_time_seconds"),
        ("Encode", "nllbd_encode_time_seconds"),
        ("Decode", "nllbd_decode_time_seconds"),
    ]
    panels = [
        Panel(f"{name} time of a sequence, p95", [Query(_quantile(metric, "0.95"), "{{host}}")], unit="s")
        for name, metric in parts
    ]
    busy = [
        Query(f"rate(nllbd_encode_seconds_total{{{_HOST}}}[5m])", "{{instance}} encode"),
        Query(f"rate(nllbd_decode_seconds_total{{{_HOST}}}[5m])", "{{instance}} decode"),
    ]
    panels += [
        Panel(
            "Step, p50 and p99",
            [
                Query(_quantile("nllbd_step_duration_seconds", "0.5"), "{{host}} 50th"),
                Query(_quantile("nllbd_step_duration_seconds", "0.99"), "{{host}} 99th"),
            ],
            unit="s",
            about="Every sequence in the batch gets one token a step.",
        ),
        Panel("Share of the time spent computing", busy, unit="percentunit", stacked=True),
        Panel("HTTP: p95 by route", [Query(_by_route(), "{{route}}")], unit="s"),
    ]
    return Row("Where the time goes", panels)


def _by_route() -> str:
    return f"histogram_quantile(0.95, sum by (route, le) (rate(nllbd_request_duration_seconds_bucket{{{_HOST}}}[5m])))"


def _work() -> Row:
    cache_time = f"histogram_quantile(0.95, sum by (le) (rate(nllbd_cache_lookup_seconds_bucket{{{_HOST}}}[5m])))"
    return Row(
        "Work",
        (
            Panel(
                "Tokens/sec",
                [Query(f"sum by (kind) (rate(nllbd_tokens_total{{{_HOST}}}[5m]))", "{{kind}}")],
            ),
            Panel(
                "Decoded tokens/sec, recent",
                [Query(f"nllbd_tokens_per_second{{{_HOST}}}", "{{instance}}")],
            ),
            Panel(
                "Sequences submitted, joined to an identical one",
                [Query(f"sum by (result) (rate(nllbd_sequences_total{{{_HOST}}}[5m]))", "{{result}}")],
                stacked=True,
            ),
            Panel(
                "Preemptions/sec",
                [Query(f"rate(nllbd_preemptions_total{{{_HOST}}}[5m])", "{{instance}}")],
                about="Sequences that are computed a second time. Runbook: daemon.md#sequencespreempted",
            ),
            Panel("Cache look-up, p95", [Query(cache_time, "p95")], unit="s"),
            Panel(
                "Cache in the process",
                [Query(f"nllbd_cache_bytes{{{_HOST}}}", "{{instance}}")],
                unit="bytes",
            ),
        ),
    )


def _health() -> Row:
    return Row(
        "Health",
        (
            Panel(
                "Engine state",
                [Query(f"max by (host, state) (nllbd_engine_state{{{_HOST}}}) == 1", "{{host}} {{state}}")],
                maximum=1,
            ),
            Panel(
                "Engine restarts in an hour",
                [Query(f"increase(nllbd_engine_restarts_total{{{_HOST}}}[1h])", "{{instance}}")],
                about="Runbook: daemon.md#enginerestarts",
            ),
            Panel(
                "Odd results and second tries/sec",
                [
                    Query(f"sum by (kind) (rate(nllbd_guard_total{{{_HOST}}}[15m]))", "{{kind}}"),
                    Query(f"sum(rate(nllbd_guard_retries_total{{{_HOST}}}[15m]))", "second tries"),
                ],
                about="Runbook: daemon.md#guardfindings",
            ),
            Panel(
                "Memory of the daemon's process",
                [Query(f'process_resident_memory_bytes{{job="nllbd",{_HOST}}}', "{{instance}}")],
                unit="bytes",
            ),
            Panel(
                "File descriptors in use",
                [
                    Query(
                        f'process_open_fds{{job="nllbd",{_HOST}}} / process_max_fds{{job="nllbd",{_HOST}}}',
                        "{{instance}}",
                    )
                ],
                unit="percentunit",
                steps=_FULL,
            ),
            Panel(
                "CPU of the daemon's process (cores)",
                [Query(f'rate(process_cpu_seconds_total{{job="nllbd",{_HOST}}}[5m])', "{{instance}}")],
                about="The event loop is one thread: near 1 it is the bottleneck. The engine is a process of its own.",
            ),
        ),
    )
