"""The daily checks as their timer starts them, inside their sandbox. (Backup and verification: tests/ops/backup.)"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ops.systemd.conftest import Machine

pytestmark = pytest.mark.ops
TEXTFILE = "var/lib/prometheus/node-exporter/nllbd-check.prom"


@pytest.fixture(scope="module")
def machine(boot: Callable[..., Machine]) -> Machine:
    machine = boot("num_threads = 1\n")
    machine.host.systemctl("start", "nllbd.service")
    return machine


def test_daily_checks_become_metrics(machine: Machine) -> None:
    """They may well find fault with a host that has no firewall, no proxy and no monitoring: that is told, too."""
    machine.host.systemctl("start", "nllbd-check.service", check=False, timeout=150)
    said = "\n".join(entry["MESSAGE"] for entry in machine.host.journal("nllbd-check.service"))
    written = (machine.host.root / TEXTFILE).read_text()
    for check in ("health", "translation"):
        assert f'nllbd_check_ok{{check="{check}"}} 1' in written, said
    for complaint in ("Traceback", "Read-only file system", "Operation not permitted"):
        assert complaint not in said


def test_jobs_give_way_to_translations(machine: Machine) -> None:
    for unit in ("nllbd-backup.service", "nllbd-backup-verify.service", "nllbd-check.service"):
        assert (machine.host.show(unit, "Nice"), machine.host.show(unit, "CPUWeight")) == ("15", "20")
