"""Hosts: machines, GPUs, nginx, Redis, PostgreSQL, backups and certificates."""

from __future__ import annotations

from .panels import Json, Panel, Query, Row, dashboard, host_variable

_HOST = 'host=~"$host"'
_REAL = 'fstype!~"tmpfs|ramfs|squashfs|overlay"'
_USED = ((None, "green"), (0.8, "orange"), (0.9, "red"))


def build() -> Json:
    rows = (_machines(), _gpus(), _edge(), _redis(), _postgres(), _care())
    about = "Machines and what stands on them beside the daemon."
    return dashboard("nllbd-hosts", "nllbd: hosts", about, rows, [host_variable("up")])


def _machines() -> Row:
    return Row(
        "System resources",
        (
            Panel(
                "CPU",
                [
                    Query(f"host:cpu_busy:ratio5m{{{_HOST}}}", "{{host}}"),
                    Query(
                        f"max by (host) (system_cpu_usage_percent{{{_HOST}}}) / 100", "{{host}}, as the daemon sees it"
                    ),
                ],
                unit="percentunit",
                maximum=1,
                about="An engine under load uses all cores: see its queue. Runbook: hosts.md#highcpuusage",
            ),
            Panel(
                "Memory",
                [
                    Query(f"host:memory_used:ratio{{{_HOST}}}", "{{host}}"),
                    Query(
                        f"max by (host) (system_memory_usage_bytes{{{_HOST}}} / system_memory_total_bytes{{{_HOST}}})",
                        "{{host}}, as the daemon sees it",
                    ),
                ],
                unit="percentunit",
                maximum=1,
                steps=_USED,
                about="Of what the host has. Runbook: hosts.md#highmemoryusage",
            ),
            Panel(
                "Disk space left",
                [Query(f"host:disk_free:ratio{{{_HOST}}}", "{{host}} {{mountpoint}}")],
                unit="percentunit",
                maximum=1,
                steps=((None, "red"), (0.05, "orange"), (0.15, "green")),
            ),
            Panel(
                "Disk busy",
                [Query(f"rate(node_disk_io_time_seconds_total{{{_HOST}}}[5m])", "{{host}} {{device}}")],
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Network",
                [
                    Query(
                        f'sum by (host) (rate(node_network_receive_bytes_total{{{_HOST},device!="lo"}}[5m]))',
                        "{{host}} in",
                    ),
                    Query(
                        f'sum by (host) (rate(node_network_transmit_bytes_total{{{_HOST},device!="lo"}}[5m]))',
                        "{{host}} out",
                    ),
                ],
                unit="Bps",
            ),
            Panel("Clock", [Query(f"node_timex_offset_seconds{{{_HOST}}}", "{{host}}")], unit="s", minimum=None),
        ),
    )


def _gpus() -> Row:
    used = f"DCGM_FI_DEV_FB_USED{{{_HOST}}} / (DCGM_FI_DEV_FB_USED{{{_HOST}}} + DCGM_FI_DEV_FB_FREE{{{_HOST}}})"
    seen = f"max by (host) (gpu_memory_usage_bytes{{{_HOST}}} / (gpu_memory_total_bytes{{{_HOST}}} > 0))"
    return Row(
        "GPUs",
        (
            Panel(
                "GPU memory",
                [Query(used, "{{host}} GPU {{gpu}}"), Query(seen, "{{host}}, as the daemon sees it")],
                unit="percentunit",
                maximum=1,
                steps=((None, "green"), (0.95, "red")),
                width=6,
            ),
            Panel(
                "GPU busy",
                [Query(f"DCGM_FI_DEV_GPU_UTIL{{{_HOST}}} / 100", "{{host}} GPU {{gpu}}")],
                unit="percentunit",
                maximum=1,
                width=6,
            ),
            Panel(
                "Temperature",
                [Query(f"DCGM_FI_DEV_GPU_TEMP{{{_HOST}}}", "{{host}} GPU {{gpu}}")],
                unit="celsius",
                width=6,
            ),
            Panel(
                "Power",
                [Query(f"DCGM_FI_DEV_POWER_USAGE{{{_HOST}}}", "{{host}} GPU {{gpu}}")],
                unit="watt",
                width=6,
            ),
        ),
    )


def _edge() -> Row:
    return Row(
        "Edge",
        (
            Panel(
                "nginx connections",
                [
                    Query(f"nginx_connections_active{{{_HOST}}}", "{{host}} active"),
                    Query(f"nginx_connections_waiting{{{_HOST}}}", "{{host}} idle"),
                ],
            ),
            Panel(
                "nginx requests/sec",
                [Query(f"rate(nginx_http_requests_total{{{_HOST}}}[5m])", "{{host}}")],
                unit="reqps",
            ),
            Panel(
                "Time to the public address",
                [Query('sum by (phase) (probe_http_duration_seconds{job="blackbox"})', "{{phase}}")],
                unit="s",
                stacked=True,
            ),
        ),
    )


def _redis() -> Row:
    return Row(
        "Redis",
        (
            Panel(
                "Memory",
                [
                    Query(
                        f"redis_memory_used_bytes{{{_HOST}}} / (redis_memory_max_bytes{{{_HOST}}} > 0)", "{{instance}}"
                    )
                ],
                unit="percentunit",
                maximum=1,
                width=6,
                about="Of maxmemory. The cache is meant to be full; the rate limits' instance is not.",
            ),
            Panel(
                "Commands/sec",
                [Query(f"rate(redis_commands_processed_total{{{_HOST}}}[5m])", "{{instance}}")],
                width=6,
            ),
            Panel(
                "Evicted and expired keys/sec",
                [
                    Query(f"rate(redis_evicted_keys_total{{{_HOST}}}[5m])", "{{instance}} evicted"),
                    Query(f"rate(redis_expired_keys_total{{{_HOST}}}[5m])", "{{instance}} expired"),
                ],
                width=6,
            ),
            Panel("Clients", [Query(f"redis_connected_clients{{{_HOST}}}", "{{instance}}")], width=6),
        ),
    )


def _postgres() -> Row:
    share = f"sum by (host, instance) (pg_stat_activity_count{{{_HOST}}})"
    share += f" / on (host, instance) pg_settings_max_connections{{{_HOST}}}"
    return Row(
        "PostgreSQL",
        (
            Panel(
                "Connections in use",
                [Query(share, "{{instance}}")],
                unit="percentunit",
                maximum=1,
                steps=_USED,
                width=6,
            ),
            Panel(
                "Transactions/sec",
                [Query(f'rate(pg_stat_database_xact_commit{{{_HOST},datname!=""}}[5m])', "{{instance}} {{datname}}")],
                width=6,
            ),
            Panel(
                "Replica behind",
                [Query(f"nllbd_pg_replication_lag_seconds{{{_HOST}}}", "{{instance}}")],
                unit="s",
                width=6,
            ),
            Panel("Size", [Query(f"pg_database_size_bytes{{{_HOST}}}", "{{datname}}")], unit="bytes", width=6),
        ),
    )


def _care() -> Row:
    return Row(
        "Backups, checks, certificates",
        (
            Panel(
                "Age of the last backup",
                [Query(f"time() - nllbd_backup_last_success_timestamp_seconds{{{_HOST}}}", "{{host}} {{kind}}")],
                unit="s",
                steps=((None, "green"), (93600, "red")),
            ),
            Panel("Checks", [Query(f"nllbd_check_ok{{{_HOST}}}", "{{host}} {{check}}")], maximum=1),
            Panel(
                "Certificates end in",
                [
                    Query('probe_ssl_earliest_cert_expiry{job="blackbox"} - time()', "{{instance}}"),
                    Query(f"nllbd_certificate_expiry_timestamp_seconds{{{_HOST}}} - time()", "{{host}} {{name}}"),
                ],
                unit="s",
                steps=((None, "red"), (259200, "orange"), (1814400, "green")),
                minimum=None,
            ),
        ),
    )
