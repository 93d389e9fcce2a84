"""Log shipping and the field reference, as far as reading goes; what really arrives is in test_shipping.py."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.kit.programs import CHECKOUT, need
from tests.ops.monitoring.artefacts import MONITORING, PROMETHEUS

LOGGING = MONITORING / "logging"
REFERENCE = CHECKOUT / "docs/operations/logs.md"
_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
#: Of `logging` itself.
_OPTIONS = {"exc_info", "stack_info", "extra"}
#: Commands are for people at terminals; they log nothing that is shipped.
_PARTS = [path for path in sorted((CHECKOUT / "nllbd").rglob("*.py")) if "commands" not in path.parts]


def reference(dataset: str) -> set[str]:
    """The fields that the reference has for it."""
    section = REFERENCE.read_text("utf-8").partition(f"\n## {dataset}")[2].partition("\n## ")[0]
    return set(re.findall(r"(?m)^\| `(\w+)`", section))


def logged_fields() -> Iterator[tuple[str, str]]:
    """(where, field) of every field that a line of code gives to a logger by name."""
    for path in _PARTS:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if node.func.attr in _METHODS and isinstance(owner, ast.Name) and "log" in owner.id and owner.id != "log":
                for keyword in node.keywords:
                    if keyword.arg and keyword.arg not in _OPTIONS:
                        yield f"{path.relative_to(CHECKOUT)}:{node.lineno}", keyword.arg


def test_the_reference_names_every_field_that_code_logs() -> None:
    fields = list(logged_fields())
    assert len(fields) > 15
    assert [f"{where}: {field}" for where, field in fields if field not in reference("nllbd")] == []


def test_nginxs_fields_are_those_of_its_log_format() -> None:
    text = (CHECKOUT / "deploy/nginx/nllbd/log.conf").read_text("utf-8")
    assert set(re.findall(r"'\"(\w+)\":", text)) == reference("nginx")


def test_the_index_template_knows_only_fields_of_the_reference() -> None:
    template = json.loads((LOGGING / "elasticsearch-template.json").read_text("utf-8"))
    assert set(template["template"]["mappings"]["properties"]["nllbd"]["properties"]) <= reference("nllbd")


@pytest.mark.parametrize("destinations", [("elasticsearch",), ("loki",), ("elasticsearch", "loki")], ids="+".join)
def test_syslog_ng_reads_its_configuration(tmp_path: Path, destinations: tuple[str, ...]) -> None:
    syslog_ng = need("syslog-ng")["syslog-ng"]
    (tmp_path / "destinations.d").mkdir()
    for name in destinations:
        (tmp_path / f"destinations.d/{name}.conf").write_text((LOGGING / f"{name}.conf").read_text("utf-8"), "utf-8")
    text = (LOGGING / "syslog-ng.conf").read_text("utf-8")
    text = text.replace("/etc/syslog-ng", str(tmp_path)).replace("/var/lib/syslog-ng", str(tmp_path))
    (tmp_path / "syslog-ng.conf").write_text(text, "utf-8")
    command = [syslog_ng, "--syntax-only", "--no-caps", f"--cfgfile={tmp_path}/syslog-ng.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in done.stderr.lower()


@pytest.mark.parametrize("script", ["bin/setup-monitoring", "logging/log-metrics"])
def test_scripts_are_clean_and_explain_themselves(script: str) -> None:
    shellcheck = need("shellcheck")["shellcheck"]
    command = [shellcheck, "--external-sources", f"deploy/monitoring/{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout
    shown = subprocess.run([MONITORING / script, "--help"], capture_output=True, text=True, check=True).stdout
    assert Path(script).name in shown


def test_a_dry_run_changes_nothing() -> None:
    roles = "server grafana host nginx redis postgres logs --logs-to loki --logs-to elasticsearch --dry-run"
    command = [MONITORING / "bin/setup-monitoring", *roles.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("would ") > 30
    assert done.stdout == ""


def test_dcgms_counters_have_three_columns() -> None:
    """A comma more in a help text, and the exporter does not start."""
    lines = (PROMETHEUS / "dcgm/counters.csv").read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines if line and not line.startswith("#")]
    assert rows
    for row in rows:
        assert len(row) == 3, row
        assert re.fullmatch(r"DCGM_FI_\w+", row[0])
        assert row[1].strip() in ("gauge", "counter")
