"""Alertmanager: who hears what. Routes by amtool; what silences what by a real one in test_delivery.py."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.ops.kit.programs import need
from tests.ops.monitoring.artefacts import MONITORING, alerts, read

CONFIG = MONITORING / "alertmanager/alertmanager.yml"
RECEIVERS = {"critical": "page", "warning": "ticket", "info": "nobody", "none": "deadman"}


def amtool(*arguments: str | Path) -> str:
    command = [str(need("amtool")["amtool"]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_reads_it() -> None:
    shown = amtool("check-config", CONFIG)
    assert "1 templates" in shown
    assert "4 receivers" in shown


@pytest.mark.parametrize("severity", RECEIVERS)
def test_severity_decides_who_is_told(severity: str) -> None:
    name = next((name for name, rule in alerts().items() if rule["labels"]["severity"] == severity), "Any")
    labels = [f"alertname={name}", f"severity={severity}", "area=daemon", "host=app-1"]
    assert amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels).split() == [RECEIVERS[severity]]


def test_what_it_names_exists() -> None:
    """Alerts in matchers are alerts of the rules: a renamed one would silence nothing, and nobody would see."""
    document = read(CONFIG)
    matchers = [
        m for rule in document["inhibit_rules"] for key in ("source", "target") for m in rule[f"{key}_matchers"]
    ]
    patterns = [match[1] for m in matchers if (match := re.fullmatch(r'alertname=~?"(.*)"', m))]
    assert patterns
    for pattern in patterns:
        for option in pattern.split("|"):
            assert any(re.fullmatch(option, name) for name in alerts()), option


def test_no_secret_is_in_it() -> None:
    text = CONFIG.read_text("utf-8")
    assert not re.search(r"(?m)^\s*(?:routing_key|api_url|auth_password|password|bearer_token|credentials):", text)
