"""Every query of rules and dashboards asks for metrics that a running daemon and the real exporters really export."""

from __future__ import annotations

import re
import time

import pytest

from tests.ops.kit.programs import CHECKOUT
from tests.ops.monitoring.artefacts import PROMETHEUS, Selector, alerts, dashboard_queries, recorded, rules, selectors
from tests.ops.monitoring.house import House, wait_scraped

pytestmark = pytest.mark.ops

#: Made by Prometheus out of alerts.
OWN = {"ALERTS"}
#: Written to files by commands that the house does not run; they must be named there.
WRITTEN_BY = {
    "nllbd_backup_": CHECKOUT / "nllbd/ops/backup",
    "nllbd_certificate_": CHECKOUT / "deploy/certificates/bin",
    "nllbd_check_": CHECKOUT / "nllbd/commands",
}
#: There is one only on a replica, or for a replica on its primary.
OF_REPLICATION = {
    "redis_master_link_up": {"master_host"},
    "redis_connected_slave_lag_seconds": {"slave_ip"},
    "pg_replication_slots_active": {"slot_name"},
    "pg_replication_slots_pg_wal_lsn_diff": {"slot_name"},
}
#: Two servers' worth of figures that have no series before something happens.
RARE = {"nllbd_guard_total": {"kind"}}
#: The state of an exporter that is not installed here.
TARGET_LABELS = {"job", "host", "instance"}


@pytest.fixture(scope="module")
def served(house: House) -> House:
    """After some traffic: known texts and new ones, good requests and bad ones."""
    house.translate("Hello.", "query-first")
    wait_scraped(house, time.time())  # a rate wants a figure from before
    for number in range(12):
        house.translate(f"Hello number {number}. How are you?", f"query-{number}")
    house.translate("Hello number 3. How are you?", "query-again")
    house.sh("systemctl start nllbd-log-metrics.service")
    wait_scraped(house, time.time() + 3)
    return house


def counters() -> set[str]:
    text = (PROMETHEUS / "dcgm/counters.csv").read_text("utf-8")
    return set(re.findall(r"(?m)^(DCGM_\w+),", text))


def all_selectors() -> set[Selector]:
    found = {selector for rule in rules() for selector in selectors(rule["expr"])}
    return found | {selector for _, expr in dashboard_queries() for selector in selectors(expr)}


def test_every_metric_is_exported_with_the_labels_that_are_asked_for(served: House) -> None:
    problems = []
    for selector in sorted(all_selectors(), key=lambda selector: selector.metric):
        name = selector.metric
        if name in OWN | recorded() or name.startswith("DCGM_"):
            assert not name.startswith("DCGM_") or name in counters(), name
            continue
        if source := next((path for prefix, path in WRITTEN_BY.items() if name.startswith(prefix)), None):
            assert any(name in file.read_text("utf-8") for file in source.rglob("*") if file.is_file()), name
            continue
        known = OF_REPLICATION.get(name) or RARE.get(name)
        series = served.series(name)
        labels = set().union(*series) if series else (known or set())
        if not labels:
            problems.append(f"{name}: nobody exports it")
        elif missing := selector.labels - labels - TARGET_LABELS:
            problems.append(f"{name}: it has no label {', '.join(missing)}")
    assert problems == []


def test_dashboards_have_something_to_show(served: House) -> None:
    """A panel is empty only if nothing of what it asks for can be here: a GPU, a backup, a replica."""
    empty = []
    for title, expr in dashboard_queries():
        metrics = {selector.metric for selector in selectors(expr)}
        absent = [m for m in metrics if m.startswith(("DCGM_", *WRITTEN_BY, "gpu_"))]
        if absent or metrics <= OWN | set(OF_REPLICATION) | set(RARE) or "changes(" in expr:
            continue
        if not served.ask_prometheus(expr):
            empty.append(f"{title}: {expr}")
    assert empty == []


def test_every_rule_is_evaluated(served: House) -> None:
    """Recording rules give series, and no rule fails."""
    failures = "sum by (rule_group) (prometheus_rule_evaluation_failures_total) > 0"
    assert served.ask_prometheus(failures) == []
    wanted = {name for name in recorded() if "gpu" not in name}
    deadline = time.monotonic() + 20
    while absent := {name for name in wanted if not served.series(name)}:
        assert time.monotonic() < deadline, f"nothing of {absent}"
        time.sleep(0.2)
    assert len(served.ask_prometheus("prometheus_rule_group_rules")) >= 10
    assert sum(float(found["value"][1]) for found in served.ask_prometheus("prometheus_rule_group_rules")) == len(
        rules()
    )


#: A test machine that is busy with other things makes these come true.
OF_BUSY_MACHINES = {"HighCPUUsage", "HighMemoryUsage", "DiskAlmostFull", "QueueSlow", "HighTranslationLatency"}
OF_BUSY_MACHINES |= {"EndpointSlow", "LatencyBudgetBurnsFast", "LatencyBudgetBurnsSlowly"}
#: Other tests at the same time run out of memory, and mount things read-only: the kernel's figures are the machine's.
OF_BUSY_MACHINES |= {"OutOfMemoryKill", "DiskReadOnly"}


def test_a_healthy_house_is_quiet(served: House) -> None:
    """Nothing fires but the watchdog and what is true of this house: nobody makes backups, no clock is set. What has to
    last for half an hour does not count: here it need not.
    """
    expected = {"Watchdog", "BackupMissing", "ClockNotSynchronised"}
    patient = {name for name, rule in alerts().items() if re.fullmatch(r"[3-9]\dm|\d+h", rule.get("for", ""))}
    borrowed = "/opt/test-environment"  # read-only indeed

    def firing() -> set[str]:
        found = [result["metric"] for result in served.ask_prometheus('ALERTS{alertstate="firing"}')]
        return {alert["alertname"] for alert in found if not alert.get("mountpoint", "").startswith(borrowed)}

    assert set(alerts()) >= expected | OF_BUSY_MACHINES
    allowed = expected | patient | OF_BUSY_MACHINES
    deadline = time.monotonic() + 30
    while loud := firing() - allowed:
        assert time.monotonic() < deadline, loud
        time.sleep(0.5)
    assert "Watchdog" in firing()
